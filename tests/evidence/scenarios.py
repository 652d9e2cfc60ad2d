"""What does an edit want that says in words what is to be built?

No published bytes have it, so it is built in a made-up world that signs with real keys: each
function makes one thing wrong and has it judged. Words that fit no line are not covered.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from constellation.attestation import snp
from constellation.attestation.model import Binding, Variant
from constellation.attestation.platforms.vtpm import qualifying_data
from constellation.attestation.snp.report import SigningKey
from constellation.attestation.tdx.endorsements import Collateral
from constellation.attestation.tpm import quote
from constellation.attestation.tpm.public import Attribute
from constellation.attestation.tpm.structures import Alg
from tests.evidence.folder import NotKnownError
from tests.fakes import amd
from tests.fakes.clouds import BINDING, Machine
from tests.fakes.intel import NOW, IntelWorld
from tests.fakes.vtpm import SoftTpm

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["judge"]

_DAY = timedelta(days=1)


def judge(words: str) -> None:
    """Build what the words say and judge it; raises the library's refusal.

    Raises:
        NotKnownError: nothing here is called so.
    """
    for pattern, build in _SCENARIOS:
        if re.search(pattern, words, re.IGNORECASE):
            build()
            return
    raise NotKnownError(f"scenario {words!r}")


def _amd_revokes(serial: int, kind: SigningKey = SigningKey.VCEK) -> Callable[[], None]:
    def build() -> None:
        world = amd.AmdWorld()
        chip = world.chip(kind=kind)
        endorsements = chip.endorsements(crl=world.crl(revoked=(serial,)))
        report = snp.parse_report(chip.report())
        snp.verify(report, endorsements=endorsements, roots=world.roots, now=amd.NOW)

    return build


def _intel(name: str, value: object) -> Callable[[], None]:
    def build() -> None:
        world = IntelWorld()
        setattr(world, name, value)
        world.verify()

    return build


def _weak_ak(attribute: Attribute) -> Callable[[], None]:
    def build() -> None:
        machine = Machine.make(Variant.QEMU_VTPM)
        machine.tpm.without = attribute
        machine.appraise()

    return build


def _not_of_a_tpm() -> None:
    machine = Machine.make(Variant.QEMU_VTPM)
    machine.appraise(machine.evidence(tpm=machine.tpm.part(BINDING, magic=0)))


def _sha1_bank() -> None:
    tpm = SoftTpm(bank=Alg.SHA1)
    part = tpm.part(BINDING)
    nonce = qualifying_data(BINDING)
    quote.verify(part.quote, signature=part.signature, ak_public=tpm.public,
                 qualifying_data=nonce, bank=Alg.SHA1, pcrs=part.pcrs)  # fmt: skip


def _another_machine() -> None:
    ours, theirs = (Machine.make(Variant.AZURE_SEV_SNP) for _ in range(2))
    ours.appraise(ours.evidence(tpm=theirs.tpm.part(BINDING)))


def _another_purpose() -> None:
    machine = Machine.make(Variant.GCP_SEV_SNP)
    machine.appraise(machine.evidence(Binding(b"another purpose".ljust(64))))


def _without_list() -> None:
    machine = Machine.make(Variant.AZURE_SEV_SNP)
    machine.appraise(machine.evidence(crl=b""))


def _old_list() -> None:
    machine = Machine.make(Variant.AZURE_SEV_SNP)
    machine.appraise(now=machine.now + 60 * _DAY)


def _without_collateral() -> None:
    machine = Machine.make(Variant.AZURE_TDX)
    whole = Collateral.parse(machine.fields(BINDING)["collateral"])
    machine.appraise(machine.evidence(collateral=replace(whole, pck_crl=b"").dump()))


# the first line whose words the entry has
_SCENARIOS: tuple[tuple[str, Callable[[], None]], ...] = (
    (r"revok.*\bASVK|\bASVK\b.*revok", _amd_revokes(0x10101, SigningKey.VLEK)),
    (r"revok.*\bASK|\bASK\b.*revok|revok.*intermediate", _amd_revokes(0x10001)),
    (r"revok.*\bARK|\bARK\b.*revok", _amd_revokes(0x10000)),
    (r"revok.*signing|signing.*revok", _intel("revoked_by_root", [0x1003])),
    (r"revok.*PCK CA|PCK CA.*revok|platform CA.*revok", _intel("revoked_by_root", [0x1002])),
    (r"revok.*PCK|PCK.*revok", _intel("revoked_by_pck_ca", [0x1001])),
    (r"revok.*(level|TCB)|(level|TCB).*revok",
     _intel("components", [3, 3, 2, 2, 3, 1, 0, 3, *[0] * 8])),
    (r"TPM_GENERATED|magic", _not_of_a_tpm),
    (r"SHA-?1\b", _sha1_bank),
    (r"fixedTPM", _weak_ak(Attribute.FIXED_TPM)),
    (r"restricted", _weak_ak(Attribute.RESTRICTED)),
    (r"(report|quote).*(machine|VM).*(report|quote)|another machine", _another_machine),
    (r"purpose|relay|another channel", _another_purpose),
    (r"collateral.*(expired|stale|old)|(expired|stale|old).*collateral",
     _intel("crl_window", (NOW - 9 * _DAY, NOW - _DAY))),
    (r"(missing|without|no) collateral|collateral.*missing", _without_collateral),
    (r"(missing|without|no) CRL|CRL.*missing", _without_list),
    (r"CRL.*(expired|stale|old)|(expired|stale|old).*CRL", _old_list),
)  # fmt: skip
