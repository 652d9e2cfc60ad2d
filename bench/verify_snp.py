"""How long does one SNP report take, from bytes to verdict, with chain and revocation list?

A published report of a Milan (version 5) with its VCEK and the published CRL of its time, read,
verified, and appraised by a policy; beside it go-sev-guest doing the same checks. `warm`:
intermediates, list and the chip's certificate were seen before, as in a service that admits a node
again; `new_chip`: all but the chip's certificate; `cold`: nothing was seen before.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bench.turns import GoPeer, compare, python
from constellation.attestation import snp
from constellation.attestation.roots import amd
from constellation.attestation.snp.verify import forget, forget_chips
from tests.vectors import evidence

__all__ = ["measure"]


def measure(repetitions: int) -> dict[str, Any]:
    """Compare with go-sev-guest."""
    item = evidence.items("amd-snp")["milan-v5-vcek-gcp"]
    report = evidence.read("amd-snp", item, "report")
    vek = evidence.read("amd-snp", item, "vcek")
    crl = (evidence.folder() / "amd-snp/crl/milan_crl.der").read_bytes()
    ask, now = amd.INTERMEDIATES["SEV-Milan"], datetime.fromisoformat(item["verify_at"])
    policy = snp.default_policy(
        report_data=bytes(64), measurements=(snp.parse_report(report).measurement,)
    )

    def once() -> None:
        authentic = snp.verify(
            snp.parse_report(report),
            endorsements=snp.Endorsements(vek=vek, intermediate=ask, crl=crl),
            roots=amd.ARKS,
            now=now,
        )
        snp.appraise(authentic, policy=policy)

    files = {"report": report, "vek": vek, "ask": ask, "ark": amd.ARKS[0], "crl": crl}
    peer = GoPeer("verify_snp", files, item["verify_at"])
    try:
        return compare(
            "SNP report, chain and CRL: bytes to verdict",
            {
                "warm": python(once),
                "new_chip": python(once, before=forget_chips),
                "cold": python(once, before=forget),
            },
            {"go-sev-guest": peer.measure},
            repetitions=repetitions,
            count=10,
        )
    finally:
        peer.close()
