"""How long does it take to verify a TDX quote with its collateral, from bytes to verdict?

`cold` forgets everything that was remembered of earlier calls (certificates, signatures, parsed
statements); `new_platform` has seen Intel's statements, but not this platform; `warm` is a service
that has seen this platform before. dcap-qvl (Rust, with its Python binding) and go-tdx-guest do
the same checks, and remember nothing.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import dcap_qvl

from bench.turns import GoPeer, compare, python
from constellation.attestation.policy import Exactly, Policy, require
from constellation.attestation.roots.intel import ROOTS, SGX_ROOT_CA
from constellation.attestation.tdx import chain, endorsements, pck, verify
from constellation.attestation.tdx.appraise import (
    REGISTERS,
    STRICT_STATUSES,
    claims,
    default_policy,
)
from constellation.attestation.tdx.endorsements import Collateral
from constellation.attestation.tdx.quote import TdReport10, parse_quote
from tests.vectors import evidence

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["measure"]

_QUOTE, _COLLATERAL = "quote-tdx4-qvl", "collateral-tdx-b0c06f-2025-10"
_AT = "2025-10-21T14:36:52Z"
_REMEMBERED = (
    pck._load,  # noqa: SLF001 - what is forgotten is what this measures
    pck.parse_extension,
    chain._issued,  # noqa: SLF001
    chain._load_crl,  # noqa: SLF001
    chain._signed_crl,  # noqa: SLF001
    chain._pck_chain,  # noqa: SLF001
    chain._signing_chain,  # noqa: SLF001
    endorsements.parse_tcb_info,
    endorsements.parse_qe_identity,
    verify._statement_holds,  # noqa: SLF001
)


def _forget() -> None:
    for function in _REMEMBERED:
        function.cache_clear()


def _policy_of(quote: bytes) -> Policy:
    """Give a policy that accepts the quote."""
    body = parse_quote(quote).body
    assert isinstance(body, TdReport10)  # noqa: S101 - a TD's
    return default_policy(
        {name: Exactly(getattr(body, name)) for name in REGISTERS},
        report_data=body.report_data,
        statuses=STRICT_STATUSES,
        minimum_tcb_evaluation=17,
    )


def _new_platform(quote: bytes, text: bytes, now: datetime) -> Callable[[], None]:
    """Forget all, then see again what is every platform's: caches cannot forget one entry."""
    collateral = Collateral.parse(text)
    ders = pck.split_pem(parse_quote(quote).signature.pck_chain, what="PCK chain")

    def forget() -> None:
        _forget()
        verify.verify_collateral(collateral, roots=ROOTS, now=now)
        chain._issued(ders[1], ders[2])  # noqa: SLF001 - the PCK CA is every platform's
        authority = pck.load_certificate(ders[1], what="PCK chain")
        chain.verify_crl(collateral.pck_crl, issuer=authority, now=now, what="PCK CRL")

    return forget


def measure(repetitions: int) -> dict[str, Any]:
    """Compare with dcap-qvl and go-tdx-guest."""
    items = evidence.items("intel-tdx")
    quote = evidence.read("intel-tdx", items[_QUOTE], "quote")
    text = evidence.read("intel-tdx", items[_COLLATERAL], "bundle")
    now, policy = datetime.fromisoformat(_AT), _policy_of(quote)

    def once() -> None:
        verified = verify.verify(
            parse_quote(quote), collateral=Collateral.parse(text), roots=ROOTS, now=now
        )
        require(policy, claims(verified))

    seconds, as_text = int(now.timestamp()), text.decode()

    def rust() -> None:
        given = dcap_qvl.QuoteCollateralV3.from_json(as_text)
        dcap_qvl.verify(quote, given, seconds)

    peer = GoPeer("verify_tdx", {"quote": quote, "bundle": text, "root": SGX_ROOT_CA}, _AT)
    try:
        return compare(
            "TDX quote with collateral: bytes to verdict",
            {
                "warm": python(once),
                "new_platform": python(once, before=_new_platform(quote, text, now)),
                "cold": python(once, before=_forget),
            },
            {"go-tdx-guest": peer.measure, "dcap-qvl": python(rust)},
            repetitions=repetitions,
            count=10,
        )
    finally:
        peer.close()
