"""How Intel's collateral comes from its provisioning certification service, and stays at hand.

Four documents make the collateral of a platform: TCB info of its FMSPC, the QE identity, the
revocation list of its PCK CA, and the root's. They come from two fixed hosts; the chains of their
signers come in headers. What was fetched is kept in memory, and in a folder if there is one, for a
day; if the service does not answer then, what is kept is used as long as it has not expired. A
platform's collateral is fetched once however many ask, and a failure is remembered for a minute.

Nothing here is trusted: whoever uses collateral verifies it (`verify`). Source: "Intel SGX and
Intel TDX Provisioning Certification Service API", version 4.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote_to_bytes

from constellation.attestation.tdx.chain import PCK_CA_NAMES, common_name
from constellation.attestation.tdx.endorsements import (
    Collateral,
    parse_qe_identity,
    parse_tcb_info,
    signed_json,
)
from constellation.attestation.tdx.pck import load_certificate, parse_extension, split_pem
from constellation.base import decode
from constellation.base.errors import FormatError, Unavailable
from constellation.base.fetch import get_bounded
from constellation.base.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from constellation.attestation.tdx.quote import Quote, TeeType
    from constellation.base.fetch import Document

__all__ = ["PckCa", "PcsClient", "Platform", "get", "platform_of"]

SERVICE = "https://api.trustedservices.intel.com"
ROOT_CA_CRL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"

_MAX_ANSWER_BYTES = 1024 * 1024
_TIMEOUT_S = 20.0
_FRESH = timedelta(days=1)
_REMEMBER_FAILURE = timedelta(minutes=1)
_MAX_PLATFORMS = 256

V_ = TypeVar("V_")


class PckCa(StrEnum):
    """Which of Intel's authorities certified a platform."""

    PLATFORM = "platform"
    PROCESSOR = "processor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What collateral depends on; `fmspc` has 6 bytes."""

    tee: TeeType
    fmspc: bytes
    ca: PckCa

    @property
    def key(self) -> str:
        """A name for files: `tdx-00806f050000-platform`."""
        return f"{self.tee.name.lower()}-{self.fmspc.hex()}-{self.ca}"


def platform_of(quote: Quote) -> Platform:
    """Read from a quote, untrusted, whose collateral it needs.

    Raises:
        FormatError: its PCK chain cannot be read, or is of no CA of Intel's.
    """
    ders = split_pem(quote.signature.pck_chain, what="PCK chain")
    leaf = load_certificate(ders[0], what="PCK chain")
    issuer = common_name(leaf.issuer)
    if issuer not in PCK_CA_NAMES:
        raise FormatError(f"PCK certificate: issued by {issuer!r}, want {PCK_CA_NAMES}")
    ca = PckCa.PLATFORM if issuer == PCK_CA_NAMES[0] else PckCa.PROCESSOR
    return Platform(tee=quote.tee, fmspc=parse_extension(leaf).fmspc, ca=ca)


async def get(url: str) -> Document:
    """Get one document of the service; see `base.fetch.get_bounded` for what it raises."""
    return await get_bounded(url, max_bytes=_MAX_ANSWER_BYTES, timeout_s=_TIMEOUT_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """Collateral (`Collateral.dump`) and when it was fetched, seconds since 1970."""

    fetched_at: int
    collateral: bytes

    def age(self, now: datetime) -> timedelta:
        return now - datetime.fromtimestamp(self.fetched_at, UTC)


class PcsClient:
    """Fetches and keeps collateral. Make one for a process, and ask it for each platform."""

    def __init__(
        self,
        *,
        cache: Path | None,
        now: Callable[[], datetime],
        get: Callable[[str], Awaitable[Document]],
    ) -> None:
        """Keep collateral in the folder `cache`, if any; fetch with `get` of this module."""
        self._cache, self._now, self._get = cache, now, get
        self._kept: dict[str, _Kept] = {}
        self._failed: dict[str, tuple[datetime, Unavailable]] = {}
        self._under_way: dict[str, asyncio.Task[Collateral]] = {}

    async def of_quote(self, quote: Quote) -> Collateral:
        """Give the collateral that a quote needs; see `collateral`."""
        return await self.collateral(platform_of(quote))

    async def collateral(self, platform: Platform) -> Collateral:
        """Give a platform's collateral, kept or fetched. Untrusted.

        Raises:
            Unavailable: the service did not answer, or does not know the platform; and nothing
                that has not expired was kept.
            FormatError: the service answered with something else.
        """
        kept = await self._look_up(platform.key)
        if kept is not None and timedelta(0) <= kept.age(self._now()) < _FRESH:
            return Collateral.parse(kept.collateral)
        try:
            return await self._fetch_once(platform)
        except Unavailable:
            if kept is None:
                raise
            collateral = Collateral.parse(kept.collateral)
            if _expires(collateral) < self._now():
                raise
            return collateral

    async def _fetch_once(self, platform: Platform) -> Collateral:
        key = platform.key
        if key in self._failed:
            since, error = self._failed[key]
            if timedelta(0) <= self._now() - since < _REMEMBER_FAILURE:
                raise Unavailable(f"asked less than a minute ago: {error}", hint=error.hint)
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._fetch(platform))
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._finished(key, done))
        # one caller's end is not the others'
        return await asyncio.shield(task)

    def _finished(self, key: str, done: asyncio.Task[Collateral]) -> None:
        del self._under_way[key]
        if not done.cancelled():
            done.exception()  # callers have it; if all went away nobody is to be told

    async def _fetch(self, platform: Platform) -> Collateral:
        try:
            collateral = await self._ask(platform)
        except Unavailable as error:
            _bounded(self._failed)[platform.key] = (self._now(), error)
            raise
        self._failed.pop(platform.key, None)
        kept = _Kept(
            fetched_at=int(self._now().timestamp()),
            collateral=collateral.dump(),
        )
        _bounded(self._kept)[platform.key] = kept
        if self._cache is not None:
            await asyncio.to_thread(write_atomic, self._path(platform.key), decode.dump(kept))
        return collateral

    async def _ask(self, platform: Platform) -> Collateral:
        tee = platform.tee.name.lower()
        urls = (
            f"{SERVICE}/{tee}/certification/v4/tcb?fmspc={platform.fmspc.hex()}",
            f"{SERVICE}/{tee}/certification/v4/qe/identity",
            f"{SERVICE}/sgx/certification/v4/pckcrl?ca={platform.ca}&encoding=der",
            ROOT_CA_CRL,
        )
        tcb, identity, pck_crl, root_crl = await asyncio.gather(*(self._get(u) for u in urls))
        tcb_info, tcb_info_signature = signed_json(tcb.body, name="tcbInfo")
        qe_identity, qe_identity_signature = signed_json(identity.body, name="enclaveIdentity")
        return Collateral(
            tcb_info=tcb_info,
            tcb_info_signature=tcb_info_signature,
            tcb_info_issuer_chain=_chain(tcb, "tcb-info-issuer-chain"),
            qe_identity=qe_identity,
            qe_identity_signature=qe_identity_signature,
            qe_identity_issuer_chain=_chain(identity, "sgx-enclave-identity-issuer-chain"),
            pck_crl=pck_crl.body,
            pck_crl_issuer_chain=_chain(pck_crl, "sgx-pck-crl-issuer-chain"),
            root_ca_crl=root_crl.body,
        )

    async def _look_up(self, key: str) -> _Kept | None:
        if key not in self._kept and self._cache is not None:
            with contextlib.suppress(FileNotFoundError, FormatError):
                data = await asyncio.to_thread(self._path(key).read_bytes)
                kept = decode.load(_Kept, data, what="kept collateral", max_bytes=len(data))
                Collateral.parse(kept.collateral)
                _bounded(self._kept)[key] = kept
        return self._kept.get(key)

    def _path(self, key: str) -> Path:
        assert self._cache is not None  # noqa: S101 - asked by both callers
        # a digest, so that no name decides a path
        return self._cache / f"{hashlib.sha256(key.encode()).hexdigest()}.json"


def _chain(document: Document, header: str) -> bytes:
    if header not in document.headers:
        raise FormatError(f"{document.url}: header {header} is missing")
    return unquote_to_bytes(document.headers[header])


def _expires(collateral: Collateral) -> datetime:
    # the lists' ends are looked at by whoever verifies
    return min(
        parse_tcb_info(collateral.tcb_info).next_update,
        parse_qe_identity(collateral.qe_identity).next_update,
    )


def _bounded(kept: dict[str, V_]) -> dict[str, V_]:
    if len(kept) >= _MAX_PLATFORMS:
        kept.pop(next(iter(kept)))
    return kept
