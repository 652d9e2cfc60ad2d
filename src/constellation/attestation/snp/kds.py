"""Where endorsements come from if the host attached none: AMD's key distribution service, cached.

One request per address in flight; what is not there is remembered for a while; when the service
says that it is asked too often (status 429) nothing is asked until it allows. A VCEK's certificate
and the intermediates are kept for good (their signatures do not age), a revocation list until the
next one is due. Source: AMD 57230 rev. 1.00, chapter 4. Nothing that comes from here is trusted:
`verify` judges it.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from typing import TYPE_CHECKING

from constellation.attestation.snp.endorsements import (
    CertificateTable,
    Endorsements,
    parse_certificate_table,
)
from constellation.attestation.snp.report import Product, SigningKey, Tcb
from constellation.base import clock
from constellation.base.errors import FormatError, Unavailable
from constellation.base.fetch import HttpStatus, get_bounded
from constellation.base.files import write_atomic
from constellation.crypto.certificate import RevocationList

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime
    from pathlib import Path

    from constellation.attestation.snp.report import Report

__all__ = ["KDS", "Kds", "crl_path", "vcek_path"]

KDS = "https://kdsintf.amd.com"

_TOO_MANY = 429
_NOT_FOUND = 404
_MAX_BYTES = 1024 * 1024
_TIMEOUT_S = 20.0
_PAUSE_S = 10.0  # what the service asks for where it names no number
_MAX_PAUSE_S = 120.0
_NEGATIVE_S = 300.0
_HWID_BYTES = {Product.MILAN: 64, Product.GENOA: 64, Product.TURIN: 8}


def vcek_path(product: Product, *, chip_id: bytes, tcb: Tcb) -> str:
    """Give the path of a VCEK's certificate (AMD 57230, section 4.1)."""
    size = _HWID_BYTES[product]
    fmc = f"fmcSPL={tcb.fmc:02}&" if product is Product.TURIN else ""
    return (
        f"/vcek/v1/{product}/{chip_id[:size].hex()}?{fmc}blSPL={tcb.bootloader:02}"
        f"&teeSPL={tcb.tee:02}&snpSPL={tcb.snp:02}&ucodeSPL={tcb.microcode:02}"
    )


def crl_path(product: Product, kind: SigningKey) -> str:
    """Give the path of the root's revocation list (section 4.3); VLEKs have one of their own."""
    return f"/{kind.lower()}/v1/{product}/crl"


class Kds:
    """Fetches endorsements from one service into one folder."""

    def __init__(
        self,
        cache: Path,
        *,
        base_url: str = KDS,
        monotonic_s: Callable[[], float] = clock.monotonic_s,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._cache = cache
        self._base_url = base_url
        self._monotonic_s = monotonic_s
        self._sleep = sleep
        self._in_flight: dict[str, asyncio.Lock] = {}
        self._absent_until: dict[str, float] = {}
        self._quiet_until = 0.0

    async def endorse(
        self,
        report: Report,
        *,
        certificates: bytes,
        product: Product | None,
        now: datetime,
        deadline_s: float,
    ) -> Endorsements:
        """Give what vouches for a report: from the host's table where it is there, else fetched.

        Args:
            report: whose key is to be vouched for.
            certificates: the host's certificate table; empty: none.
            product: needed for reports before version 3, which do not say it.
            now: decides whether a cached revocation list is still good.
            deadline_s: longest time for all, with pauses that the service asks for.

        Raises:
            FormatError: the table or the report is not what it should be.
            Unavailable: the certificate is not to be had; a list that is not is left out, which
                `verify` records.
        """
        table = parse_certificate_table(certificates) if certificates else CertificateTable()
        kind = report.signing_key or SigningKey.VCEK
        product = report.certified_product(product)
        if product is None:
            raise Unavailable("a report of version 2 does not say its product, and none was given")
        end = self._monotonic_s() + deadline_s
        vek = table.vlek if kind is SigningKey.VLEK else table.vcek
        if vek is None:
            if kind is SigningKey.VLEK:
                raise Unavailable("the host attached no VLEK certificate; only the cloud has it")
            tcb = Tcb.parse(report.reported_tcb, product=product)
            path = vcek_path(product, chip_id=report.chip_id, tcb=tcb)
            vek = await self.get(path, fresh=None, end=end)
        crl = table.crl
        if crl is None:
            crl = await self._crl(crl_path(product, kind), now=now, end=end)
        return Endorsements(vek=vek, intermediate=table.ask, crl=crl)

    async def revocation_list(
        self, product: Product, kind: SigningKey, *, now: datetime, deadline_s: float
    ) -> bytes | None:
        """Give a product's revocation list; None where it is not to be had."""
        end = self._monotonic_s() + deadline_s
        return await self._crl(crl_path(product, kind), now=now, end=end)

    async def _crl(self, path: str, *, now: datetime, end: float) -> bytes | None:
        def fresh(data: bytes) -> bool:
            try:
                return now <= RevocationList.parse(data, what="CRL").next_update
            except FormatError:
                return False

        try:
            return await self.get(path, fresh=fresh, end=end)
        except Unavailable:
            # an old list still names what was revoked; that it is old is a finding
            kept = self._file(path)
            return kept.read_bytes() if kept.exists() else None

    async def get(self, path: str, *, fresh: Callable[[bytes], bool] | None, end: float) -> bytes:
        """Give one document: from the cache if `fresh` says so (None: always), else fetched.

        Raises:
            Unavailable: not there, or not before `end` (of the monotonic clock).
        """
        async with self._in_flight.setdefault(path, asyncio.Lock()):
            file = self._file(path)
            if file.exists() and (fresh is None or fresh(file.read_bytes())):
                return file.read_bytes()
            if self._monotonic_s() < self._absent_until.get(path, 0.0):
                raise Unavailable(f"{self._base_url}{path}: was not there a moment ago")
            body = await self._fetch(path, end=end)
            await asyncio.to_thread(write_atomic, file, body)
            return body

    async def _fetch(self, path: str, *, end: float) -> bytes:
        url = self._base_url + path
        while True:
            pause = self._quiet_until - self._monotonic_s()
            if pause > 0:
                if self._monotonic_s() + pause >= end:
                    raise Unavailable(f"{url}: the service asks for {pause:.0f} s of quiet")
                await self._sleep(pause)
            left = end - self._monotonic_s()
            if left <= 0:
                raise Unavailable(f"{url}: not in time")
            try:
                timeout_s = min(left, _TIMEOUT_S)
                return (await get_bounded(url, max_bytes=_MAX_BYTES, timeout_s=timeout_s)).body
            except HttpStatus as error:
                if error.status == _NOT_FOUND:
                    self._absent_until[path] = self._monotonic_s() + _NEGATIVE_S
                if error.status != _TOO_MANY:
                    raise
                self._quiet_until = self._monotonic_s() + _retry_after(error)

    def _file(self, path: str) -> Path:
        # the digest keeps two addresses apart that look the same once cleaned
        name = re.sub(r"[^A-Za-z0-9]+", "-", path)[-60:].strip("-")
        return self._cache / f"{hashlib.sha256(path.encode()).hexdigest()[:16]}-{name}"


def _retry_after(error: HttpStatus) -> float:
    # RFC 9110, section 10.2.3: seconds, or a date, which we do not read
    text = error.headers.get("retry-after", "")
    return min(float(text), _MAX_PAUSE_S) if text.isascii() and text.isdigit() else _PAUSE_S
