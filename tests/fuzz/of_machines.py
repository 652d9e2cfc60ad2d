"""Targets: what TPMs, boot logs, clouds and whole machines say."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from constellation.attestation import registry
from constellation.attestation.google.certificate import InstanceInfo
from constellation.attestation.ima import measurement_list
from constellation.attestation.model import Evidence, Variant
from constellation.attestation.nitro import document as nitro
from constellation.attestation.platforms import azure_trustedlaunch, td_log
from constellation.attestation.tpm import forms
from constellation.attestation.tpm.eventlog import EventLog, describe
from constellation.attestation.tpm.public import Public
from constellation.attestation.tpm.structures import Alg, Attest, parse_signature
from constellation.base.errors import FormatError, Rejected, Untrusted
from tests.fakes import clouds
from tests.fakes.google import instance_information
from tests.fakes.vtpm import SoftTpm
from tests.fuzz import seeds
from tests.fuzz.target import Target, repeated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["TARGETS"]

_KEY = ec.derive_private_key(1, ec.SECP256R1()).public_key()


def _log(data: bytes) -> object:
    log = EventLog.parse(data)
    assert log.pack() == data
    return [describe(event) for event in log.events]


def _ccel(data: bytes) -> object:
    return td_log.rtmrs(td_log.parse_log(data))


def _ima(data: bytes) -> object:
    return measurement_list.replay(measurement_list.parse(data), bank=Alg.SHA256)


def _ak_certificate(data: bytes) -> object:
    return azure_trustedlaunch.verify_ak_certificate(
        data, intermediates=(), roots=(), now=clouds.NOW
    )


def _nitro(data: bytes) -> object:
    return nitro.parse(data)


def _container(variant: Variant) -> Callable[[bytes], object]:
    def run(data: bytes) -> object:
        machine = _machine(variant)
        return machine.appraise(Evidence(variant=variant, data=data))

    return run


_MACHINES: dict[Variant, clouds.Machine] = {}


def _machine(variant: Variant) -> clouds.Machine:
    if variant not in _MACHINES:
        _MACHINES[variant] = clouds.Machine.make(variant)
    return _MACHINES[variant]


def _other(variant: Variant) -> Callable[[bytes], object]:
    """Verify as a variant whose machines we have no fake of: its container alone is reached."""
    judge = registry.verifier(
        variant, policy={}, trust_roots=registry.published_roots(variant) or (b"",)
    )

    def run(data: bytes) -> object:
        evidence = Evidence(variant=variant, data=data)
        return judge.appraise(evidence, binding=clouds.BINDING, now=clouds.NOW)

    return run


def _td_containers() -> Iterable[bytes]:
    text = json.loads(seeds.evidence()["azure-tdx"])
    yield json.dumps(
        {
            "collateral": text["collateral"],
            "event_log": base64.b64encode(_ccel_log().ljust(1024, b"\xff")).decode(),
            "quote": base64.b64encode(seeds.intel().quote()).decode(),
        },
        separators=(",", ":"),
        sort_keys=True,
    ).encode()


def _ccel_log() -> bytes:
    tpm = SoftTpm(bank=Alg.SHA384)
    return tpm.log.pack()


def _logs() -> Iterable[bytes]:
    yield from seeds.parts("event_log")
    yield SoftTpm(bank=Alg.SHA1).log.pack()
    yield _ccel_log()
    yield (1).to_bytes(4, "little") * 2 + bytes(20) + (4).to_bytes(4, "little") + bytes(4)


def _lists() -> Iterable[bytes]:
    digest = "0" * 40
    yield f"10 {digest} ima-ng sha256:{'0' * 64} /boot\n".encode()
    yield f"10 {digest} ima-sig sha256:{'0' * 64} /boot 0302\n".encode()
    yield f"10 {digest} ima {digest} boot_aggregate\n".encode()
    yield f"10 {digest} ima-buf sha256:{'0' * 64} kernel_version 3520\n".encode()


def _containers() -> tuple[Target, ...]:
    judged = (FormatError, Untrusted, Rejected)
    return tuple(
        Target(
            name=f"evidence-{variant}",
            run=_container(variant),
            seeds=lambda v=variant: [_machine(v).evidence().data],  # type: ignore[misc]
            allowed=judged,
            max_bytes=32768,
        )
        for variant in clouds.VARIANTS
    )


_QUOTES = ("tpm-quote/**/*.msg", "azure/**/tpm_quote.msg", "gcp/**/*.msg", "aws/**/*.msg")
_SIGNATURES = ("**/*.tpmtsig", "**/*.sig")

TARGETS = (
    Target(
        name="tpm-attest",
        run=Attest.parse,
        seeds=lambda: seeds.parts("quote"),
        evidence=_QUOTES,
    ),
    Target(
        name="tpm-public",
        run=Public.parse,
        seeds=lambda: seeds.parts("ak_public"),
        evidence=("**/*.tpmt",),
    ),
    Target(
        name="tpm-signature",
        run=parse_signature,
        seeds=lambda: seeds.parts("signature"),
        evidence=_SIGNATURES,
    ),
    Target(
        name="tpm-ak-forms",
        run=forms.parse_ak,
        seeds=lambda: seeds.parts("ak_public"),
        evidence=("**/*ak*pub*", "**/*.tpmt"),
    ),
    Target(
        name="tpm-signature-forms",
        run=lambda data: forms.parse_any_signature(data, key=_KEY, hash_alg=Alg.SHA256),
        seeds=lambda: seeds.parts("signature"),
        evidence=_SIGNATURES,
    ),
    Target(
        name="tpm-pcrs",
        run=forms.parse_pcrs,
        seeds=lambda: [json.dumps({"0": "00" * 32, "15": "ff" * 32}).encode()],
        evidence=("**/*pcrs*.json",),
    ),
    Target(
        name="event-log",
        run=_log,
        seeds=_logs,
        evidence=("tpm-eventlog/log/*.bin",),
        long=repeated(b"", (1).to_bytes(4, "little") * 2 + bytes(24)),
        max_bytes=65536,
    ),
    Target(
        name="ccel",
        run=_ccel,
        seeds=lambda: [_ccel_log().ljust(2048, b"\xff"), _ccel_log()],
        allowed=(FormatError, Untrusted),
        evidence=("tpm-eventlog/ccel/*.bin",),
        max_bytes=65536,
    ),
    Target(
        name="ima",
        run=_ima,
        seeds=_lists,
        allowed=(FormatError, Untrusted),
        evidence=("ima/*.txt",),
        long=repeated(b"", b"10 " + b"0" * 40 + b" ima-ng sha256:" + b"0" * 64 + b" /boot\n"),
    ),
    Target(
        name="google-instance",
        run=InstanceInfo.parse,
        seeds=lambda: [instance_information("vm"), instance_information("vm", bare=True)],
    ),
    Target(
        name="azure-ak-certificate",
        run=_ak_certificate,
        seeds=lambda: seeds.parts("ak_certificate"),
        allowed=(FormatError, Untrusted),
        evidence=("azure/akcert/*.der",),
    ),
    Target(
        name="nitro-document",
        run=_nitro,
        seeds=lambda: seeds.parts("document"),
        evidence=("aws/**/*.cose", "aws/**/published.bin"),
        long=repeated(b"\x84\x44\xa1\x01\x38\x22\xa0", b"\x81"),
    ),
    *_containers(),
    Target(
        name="evidence-gcp-tdx",
        run=_other(Variant.GCP_TDX),
        seeds=_td_containers,
        allowed=(FormatError, Untrusted, Rejected),
        max_bytes=65536,
    ),
    Target(
        name="evidence-qemu-sev-snp",
        run=_other(Variant.QEMU_SEV_SNP),
        seeds=lambda: [seeds.evidence()["gcp-sev-snp"]],
        allowed=(FormatError, Untrusted, Rejected),
        max_bytes=32768,
    ),
    Target(
        name="evidence-local-vtpm",
        run=_other(Variant.LOCAL_VTPM),
        seeds=lambda: [seeds.evidence()["qemu-vtpm"]],
        allowed=(FormatError, Untrusted, Rejected),
        max_bytes=32768,
    ),
)
