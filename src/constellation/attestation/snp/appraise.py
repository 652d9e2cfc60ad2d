"""Whether an authentic report is acceptable: its claims by name, and one rule for each of them.

The names of TCB claims begin with the line of chips (`milan.reported_tcb.microcode`), since numbers
of two lines cannot be compared; one policy can have rules for several lines, and accepts exactly
those. Sources: AMD 56860 rev. 1.58, Tables 9, 23 and 24; RFC 9334, section 8.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.attestation import policy as rules
from constellation.attestation.policy import AtLeast, Exactly, OneOf, Policy, Rule, Unchecked
from constellation.attestation.snp.report import (
    GuestPolicy,
    Line,
    PlatformInfo,
    Product,
    SigningKey,
    Tcb,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.attestation.model import Authentic, Claims
    from constellation.attestation.snp.verify import EndorsedReport

__all__ = ["MINIMUM_TCB", "appraise", "claims", "default_policy", "dump_default_policy", "relevant"]

MINIMUM_TCB: Mapping[Line, Tcb] = {
    Line.MILAN: Tcb(fmc=0, bootloader=4, tee=0, snp=24, microcode=219),
    Line.GENOA: Tcb(fmc=0, bootloader=10, tee=0, snp=23, microcode=84),
    Line.BERGAMO: Tcb(fmc=0, bootloader=10, tee=0, snp=23, microcode=25),
}
"""The oldest firmware that a default policy accepts, by line of chips.

What machines of public clouds report since the fixes of AMD-SB-3015 (memory aliasing) and
AMD-SB-3019 (signatures of microcode). Turin is not among them: give minima of your own for it.
"""

_TCBS = ("reported", "committed", "launch", "current")
_ABI_BITS = 0xFFFF
_NO_MIGRATION_AGENT = b"\xff" * 32

_SET_BY_OWNER = "the ID block's signer chooses it; the measurement decides"
_SMT = "threads of one core may serve two guests; scheduling is part of the kernel's defence"
_EXTRA = "a stricter demand of the guest's owner; its absence takes nothing from the claims"
_HOST_SETUP = "how the host is set up; guest memory is encrypted and protected either way"
_NUMBER_OF_GUEST = "a number of this start of the guest; says nothing about what runs"
_BUILD = "build numbers of firmware; the TCB's security versions decide"


def claims(authentic: Authentic[EndorsedReport]) -> Claims:
    """Give every claim of a verified report, flat; the same names for all versions of reports.

    What a version does not say is 0 (`cpuid.*` before 3, `*_mit_vector` before 5). `reserved` is 1
    if a byte is set that has no published meaning.
    """
    endorsed = authentic.claims
    report = endorsed.report
    found: dict[str, bytes | int] = {
        "report_version": report.version,
        "guest_svn": report.guest_svn,
        "policy.abi_major": report.policy >> 8 & 0xFF,
        "policy.abi_minor": report.policy & 0xFF,
        "family_id": report.family_id,
        "image_id": report.image_id,
        "vmpl": report.vmpl,
        "signing_key.vlek": int(endorsed.signing_key is SigningKey.VLEK),
        "csp_id": endorsed.csp_id.encode(),
        "author_key_en": int(report.author_key_en),
        "key_info.reserved": report.key_info >> 5,
        "reserved": int(any(report.reserved)),
        "report_data": report.report_data,
        "measurement": report.measurement,
        "host_data": report.host_data,
        "id_key_digest": report.id_key_digest,
        "author_key_digest": report.author_key_digest,
        "report_id": report.report_id,
        "report_id_ma": report.report_id_ma,
        "chip_id": report.chip_id,
        "cpuid.family": report.cpuid_fam_id,
        "cpuid.model": report.cpuid_mod_id,
        "cpuid.stepping": report.cpuid_step,
        "current_version": int.from_bytes(report.current_version, "little"),
        "committed_version": int.from_bytes(report.committed_version, "little"),
        "launch_mit_vector": report.launch_mit_vector,
        "current_mit_vector": report.current_mit_vector,
        "crl.present": int(endorsed.crl_present),
        "crl.current": int(endorsed.crl_current),
    }
    _add_bits(found, "policy", report.policy, GuestPolicy, known=_ABI_BITS)
    _add_bits(found, "platform_info", report.platform_info, PlatformInfo, known=0)
    line = endorsed.line
    for which in _TCBS:
        tcb = endorsed.tcb(which)
        for part in _parts(endorsed.product):
            found[f"{line}.{which}_tcb.{part}"] = getattr(tcb, part)
    return found


def default_policy(
    *,
    report_data: bytes,
    measurements: tuple[bytes, ...],
    host_data: bytes = bytes(32),
    minimum_tcb: Mapping[Line, Tcb] = MINIMUM_TCB,
    signing_key: SigningKey = SigningKey.VCEK,
    csp_ids: tuple[str, ...] = (),
    id_key_digests: tuple[bytes, ...] = (),
) -> Policy:
    """Give a rule for every claim: the strictest policy that real machines of today pass.

    Args:
        report_data: the 64 bytes that the guest had to have signed.
        measurements: accepted launch digests, 48 bytes each; none accepts nothing.
        host_data: 32 bytes that the host had to give at launch; zero unless the variant uses it.
        minimum_tcb: accepted lines of chips, each with its oldest accepted firmware.
        signing_key: whether chips' own keys or keys lent to a cloud are accepted.
        csp_ids: for VLEKs: accepted clouds, for example `CN=cc-us-east-2.amazonaws.com`.
        id_key_digests: accepted digests of ID keys, 48 bytes each; none: not checked.
    """
    vlek = signing_key is SigningKey.VLEK
    made: dict[str, Rule] = {
        "report_version": AtLeast(2),
        "guest_svn": Unchecked(_SET_BY_OWNER),
        "policy.abi_major": Unchecked("the ABI that the launch needed at least"),
        "policy.abi_minor": Unchecked("the ABI that the launch needed at least"),
        "family_id": Unchecked(_SET_BY_OWNER),
        "image_id": Unchecked(_SET_BY_OWNER),
        "vmpl": Exactly(0),
        "signing_key.vlek": Exactly(int(vlek)),
        "csp_id": OneOf(tuple(c.encode() for c in csp_ids)) if vlek else Exactly(b""),
        "key_info.reserved": Exactly(0),
        "reserved": Exactly(0),
        "author_key_en": Unchecked("the digests of both keys are claims of their own"),
        "report_data": Exactly(report_data),
        "measurement": OneOf(measurements),
        "host_data": Exactly(host_data),
        "id_key_digest": OneOf(id_key_digests) if id_key_digests else Unchecked(_SET_BY_OWNER),
        "author_key_digest": Unchecked(_SET_BY_OWNER),
        "report_id": Unchecked(_NUMBER_OF_GUEST),
        "report_id_ma": Exactly(_NO_MIGRATION_AGENT),
        "chip_id": Unchecked("any genuine chip; its identity is in the result"),
        "cpuid.family": Unchecked("verified to be of the line of chips that the key is of"),
        "cpuid.model": Unchecked("verified to be of the line of chips that the key is of"),
        "cpuid.stepping": Unchecked("all steppings of a line have the same security claims"),
        "current_version": Unchecked(_BUILD),
        "committed_version": Unchecked(_BUILD),
        "launch_mit_vector": Unchecked("versions of reports before 5 do not say it"),
        "current_mit_vector": Unchecked("versions of reports before 5 do not say it"),
        "crl.present": Exactly(1),
        "crl.current": Exactly(1),
    }
    made.update(_GUEST_POLICY_RULES)
    made.update(_PLATFORM_INFO_RULES)
    for line, minimum in minimum_tcb.items():
        for which in _TCBS:
            for part in _parts(line.product):
                made[f"{line}.{which}_tcb.{part}"] = AtLeast(getattr(minimum, part))
    return made


def dump_default_policy() -> str:
    """Write the default policy, one line a claim, for people who sign it off."""
    policy = default_policy(report_data=bytes(64), measurements=())
    given = {
        "report_data": "the 64 bytes that the caller must give",
        "measurement": "one of the launch digests that the caller must give",
    }
    lines = [line for line in rules.describe(policy) if line.partition(":")[0] not in given]
    return "\n".join(sorted((*(f"{n}: {text}" for n, text in given.items()), *lines))) + "\n"


def relevant(policy: Policy, found: Claims) -> Policy:
    """Leave out the rules for other lines of chips than that of the claims.

    A line that the policy has no rules for keeps its claims without rule: findings, each of them.
    """
    lines = tuple(f"{line}." for line in Line)
    ours = {name.partition(".")[0] + "." for name in found if name.startswith(lines)}
    others = tuple(line for line in lines if line not in ours)
    return {name: rule for name, rule in policy.items() if not name.startswith(others)}


def appraise(authentic: Authentic[EndorsedReport], *, policy: Policy) -> tuple[str, ...]:
    """Give a line for each claim that went unchecked, or refuse.

    Raises:
        Rejected: with every finding.
    """
    found = claims(authentic)
    return rules.require(relevant(policy, found), found)


_GUEST_POLICY_RULES: Mapping[str, Rule] = {
    "policy.smt": Unchecked(_SMT),
    "policy.must_be_one": Exactly(1),
    "policy.migrate_ma": Exactly(0),
    "policy.debug": Exactly(0),
    "policy.single_socket": Unchecked(_EXTRA),
    "policy.cxl_allow": Exactly(0),
    "policy.mem_aes_256_xts": Unchecked(_EXTRA),
    "policy.rapl_dis": Unchecked(_EXTRA),
    "policy.ciphertext_hiding_dram": Unchecked(_EXTRA),
    "policy.page_swap_disable": Unchecked(_EXTRA),
    "policy.reserved": Exactly(0),
}
_PLATFORM_INFO_RULES: Mapping[str, Rule] = {
    "platform_info.smt_en": Unchecked(_SMT),
    "platform_info.tsme_en": Unchecked(_HOST_SETUP),
    "platform_info.ecc_en": Unchecked(_HOST_SETUP),
    "platform_info.rapl_dis": Unchecked(_HOST_SETUP),
    "platform_info.ciphertext_hiding_dram_en": Unchecked(_HOST_SETUP),
    # AMD-SB-3015: without it, memory modules that lie about their size break the protection
    "platform_info.alias_check_complete": Exactly(1),
    "platform_info.tio_en": Unchecked(_HOST_SETUP),
    "platform_info.reserved": Exactly(0),
}


def _add_bits(
    found: dict[str, bytes | int],
    prefix: str,
    value: int,
    names: type[GuestPolicy | PlatformInfo],
    *,
    known: int,
) -> None:
    for bit in names:
        found[f"{prefix}.{str(bit.name).lower()}"] = int(bool(value & bit))
        known |= int(bit)
    found[f"{prefix}.reserved"] = value & ~known


def _parts(product: Product) -> tuple[str, ...]:
    parts = ("bootloader", "tee", "snp", "microcode")
    return ("fmc", *parts) if product is Product.TURIN else parts
