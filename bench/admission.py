"""How many nodes a second does a JoinService appraise, each new to it?

A thousand machines of `gcp-sev-snp` in a made-up world that signs with real keys: each has a chip
of its own (VCEK certificate, report over the binding and the AK), a vTPM of its own (AK
certificate, quote, event log). The verifier is made anew for each, as the JoinService does from its
policy; what is remembered is what a process remembers: the chip maker's and the cloud's
authorities, the revocation list. `new` admits each for the first time, `again` all of them again.
"""

from __future__ import annotations

import hashlib
import sys
import time
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.serialization import Encoding

from constellation.attestation import snp
from constellation.attestation.google.technology import Technology
from constellation.attestation.model import Binding, Evidence, Variant
from constellation.attestation.platforms import chip, gcp_sev_snp
from constellation.attestation.snp.verify import forget
from constellation.attestation.tpm.eventlog import EventType
from constellation.base import decode
from tests.fakes.amd import NOW, AmdWorld
from tests.fakes.google import GoogleWorld
from tests.fakes.vtpm import SoftTpm

if TYPE_CHECKING:
    from constellation.attestation.policy import Policy

__all__ = ["measure"]


def _machine(amd: AmdWorld, google: GoogleWorld, number: int) -> tuple[Binding, Evidence]:
    tpm, processor = SoftTpm(), amd.chip(number)
    firmware = b"GCE NonHostInfo\0" + bytes([Technology.AMD_SEV_SNP]) + bytes(15)
    tpm.measure(0, EventType.EV_NONHOST_INFO, firmware)
    binding = Binding(hashlib.sha512(b"channel %d" % number).digest())
    part = tpm.part(binding)
    signed = chip.report_data(binding, companion=part.ak_public)
    document = gcp_sev_snp.GcpSnpEvidence(
        tpm=part,
        ak_certificate=google.certify(tpm.public_key).public_bytes(Encoding.DER),
        ak_chain=(google.intermediate.der,),
        report=processor.report(report_data=signed),
        vcek=processor.vek,
        ask=processor.intermediate,
        crl=processor.crl or b"",
    )
    return binding, Evidence(variant=Variant.GCP_SEV_SNP, data=decode.dump(document))


def _policy(amd: AmdWorld) -> Policy:
    return gcp_sev_snp.policy(
        SoftTpm().reference(),
        measurements=(b"\x4d" * 48,),
        minimum_tcb={snp.Line.MILAN: amd.chip().tcb},
        project_ids=("project",),
        node_document_digest=hashlib.sha256(b"document").digest(),
        cluster_id=None,
    )


def measure(nodes: int = 1000) -> dict[str, Any]:
    """Appraise them all, twice."""
    amd, google = AmdWorld(), GoogleWorld(NOW)
    policy, seen = _policy(amd), set()
    machines = []
    for number in range(nodes):
        if number % 100 == 0:
            print(f"admission: {number} of {nodes} machines made", file=sys.stderr, flush=True)
        machines.append(_machine(amd, google, number))
    forget()
    result: dict[str, Any] = {"what": "appraisal of gcp-sev-snp nodes by one process"}
    for name in ("new", "again"):
        start, used = time.perf_counter(), time.process_time()
        for binding, evidence in machines:
            verifier = gcp_sev_snp.GcpSnpVerifier(
                policy=policy, chip_roots=amd.roots, trust_roots=(google.root.der,)
            )
            seen.add(verifier.appraise(evidence, binding=binding, now=NOW).attester_id)
        wall, cpu = time.perf_counter() - start, time.process_time() - used
        result[name] = {
            "nodes": nodes,
            "wall_s": round(wall, 2),
            "cpu_s": round(cpu, 2),
            "nodes_per_cpu_second": round(nodes / cpu),
        }
    assert len(seen) == nodes  # noqa: S101 - each machine was itself
    return result
