"""How are published reports and quotes of chips judged, and their fields compared?

Each procedure gets a case; `judge` verifies and raises the library's refusal, `compare` holds what
it found against the entry's values.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from constellation.attestation import chain, kinds, snp
from constellation.attestation import policy as rules
from constellation.attestation.kinds import Given, Verdict
from constellation.attestation.policy import AtLeast, Exactly, Unchecked
from constellation.attestation.roots import amd, aws, google, intel, microsoft
from constellation.attestation.snp.endorsements import vek_facts
from constellation.attestation.snp.verify import verify_intermediate, verify_list
from constellation.base.errors import Rejected, Untrusted
from constellation.crypto.certificate import Certificate, RevocationList
from tests.evidence.folder import Case, NotKnownError, at, same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "PROCEDURES",
    "Procedure",
    "ask",
    "root_chain",
    "same_certificate",
    "same_report",
    "snp_report",
]


class Procedure(NamedTuple):
    """How a kind of entry is judged, and what is compared once it is accepted."""

    judge: Callable[[Case], Any]
    compare: Callable[[Case, Any], None] | None = None


def ask(case: Case, kind: str, files: dict[str, bytes], **how: Any) -> Verdict:
    """Verify files as `constellation evidence verify` does."""
    return kinds.verify(kind, Given(files=files, now=case.now, **how), policy=None)


# --- SEV-SNP


def _vek(case: Case) -> bytes:
    return case.get("vlek", "vcek", "vek")


def _judge_snp(case: Case) -> Verdict | snp.Report:
    if case.find("vlek", "vcek", "vek") is None:
        return snp.parse_report(case.get("report"))  # nothing vouches for it: only its form
    said = case.values.get("report", {}).get("report_data")
    data = case.get("report")
    files = {"report": data, "vek": _vek(case)}
    expected = bytes.fromhex(said) if said else snp.parse_report(data).report_data
    expected = case.expect.get("report_data", expected)
    found = ask(case, "snp", files, report_data=expected, crl=case.find("crl"))
    if wanted := case.expect.get("policy"):
        policy = dict.fromkeys(found.claims, Unchecked("the entry does not ask for it"))
        for name, value in _flat(wanted):
            claim, rule = _rule(name, value)
            # the firmware's claims are named by the line of chips
            of_line = [c for c in found.claims if c == claim or c.endswith(f".{claim}")]
            if len(of_line) != 1:
                raise NotKnownError(f"policy {name!r}: no claim {claim!r}")
            policy[of_line[0]] = rule
        rules.require(policy, found.claims)
    return found


def _flat(policy: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in policy.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _rule(name: str, value: Any) -> tuple[str, Any]:
    """Translate a line of an entry's policy."""
    if name.startswith("allow_"):
        return f"policy.{name.removeprefix('allow_')}", Exactly(int(value))
    if name.startswith("min_tcb."):
        return f"reported_tcb.{name.removeprefix('min_tcb.')}", AtLeast(value)
    if name.startswith("min_"):
        return name.removeprefix("min_"), AtLeast(value)
    return name, Exactly(bytes.fromhex(value) if isinstance(value, str) else int(value))


def _compare_snp(case: Case, found: Verdict | snp.Report) -> None:
    if isinstance(found, snp.Report):
        said = case.values.get("report", {})
        same(said, **{n: getattr(found, n) for n in ("version", "guest_svn", "vmpl")})
        digests = ("measurement", "report_data", "host_data", "report_id", "chip_id")
        same(said, **{n: getattr(found, n).hex() for n in digests})
        return
    authentic = snp.verify(
        snp.parse_report(case.get("report")),
        endorsements=snp.Endorsements(vek=_vek(case)),
        roots=amd.ARKS,
        now=case.now,
    )
    same_report(authentic, case.values.get("report", {}))
    same_certificate(_vek(case), case.values.get("vek", {}))
    refused = _refused_by_default(authentic, found)
    said = case.expected.get("policy_reject", "")
    for name, word in (("policy.debug", "debug"), ("vmpl", "VMPL")):
        assert (name in refused) is (word.lower() in said.lower()), f"{name}: refused {refused}"


def _refused_by_default(authentic: Any, found: Verdict) -> set[str]:
    """Give which claims of the guest the default policy refuses."""
    default = snp.default_policy(
        report_data=authentic.claims.report.report_data,
        measurements=(authentic.claims.report.measurement,),
    )
    try:
        rules.require({n: default.get(n, Unchecked("other")) for n in found.claims}, found.claims)
    except Rejected as error:
        return {line.partition(":")[0] for line in error.findings}
    return set()


def same_report(authentic: Any, values: dict[str, Any]) -> None:  # noqa: C901, PLR0912 - one a field
    """Compare all fields of an authentic report that an entry gives."""
    endorsed, found = authentic.claims, snp.claims(authentic)
    report = endorsed.report
    for name, value in values.items():
        if name.startswith("policy_") and name != "policy_abi":
            assert found[f"policy.{name.removeprefix('policy_')}"] == int(value), name
        elif name.endswith("_tcb"):
            tcb = endorsed.tcb(name.removesuffix("_tcb"))
            assert getattr(report, name).hex() == value["raw"], name
            for part in value.keys() - {"raw"}:
                assert getattr(tcb, part) == (value[part] or 0), f"{name}.{part}"
        elif name.endswith("_version"):
            build, minor, major = getattr(report, name)
            assert f"{major}.{minor}.{build}" == value, name
        elif name in ("signature_r", "signature_s"):
            assert int.from_bytes(getattr(report, name), "little") == int(value, 16), name
        elif name == "chip_id":  # manifests print that of a Turin in its 8 bytes
            assert report.chip_id.hex().rstrip("0") == value.rstrip("0")
        elif name == "cpuid":
            wanted = value or {}
            assert wanted == {n: found[f"cpuid.{n}"] for n in wanted}
        elif name == "product":
            assert value is None or endorsed.product == value
        elif name == "signing_key":
            assert endorsed.signing_key == value
        elif name == "policy_abi":
            assert value == f"{(report.policy >> 8) & 255}.{report.policy & 255}"
        elif hasattr(report, name):
            mine = getattr(report, name)
            if isinstance(mine, bytes):
                assert mine.hex() == value, name
            else:
                assert int(mine) == (int(value, 16) if isinstance(value, str) else value), name


def same_certificate(vek: bytes, values: dict[str, Any]) -> None:
    """Compare what a VCEK's or VLEK's certificate says."""
    parsed = Certificate.parse(vek, what="VEK")
    facts = vek_facts(parsed)
    for name, mine in (("not_before", parsed.not_before), ("not_after", parsed.not_after)):
        assert name not in values or mine == at(values[name]), name
    assert "serial" not in values or parsed.serial == int(values["serial"], 16)
    same(values, product_name=facts.product_name, struct_version=facts.struct_version)
    for part in ("bootloader", "tee", "snp", "microcode", "fmc"):
        assert part not in values or getattr(facts.tcb, part) == (values[part] or 0), part
    for part, text in (("hwid", facts.hwid.hex()), ("csp_id", facts.csp_id)):
        assert part not in values or text == (values[part] or ""), part
    assert "issuer" not in values or f"CN={parsed.issuer_name()}," in values["issuer"] + ","


def _judge_vek(case: Case) -> Any:
    return snp.verify_chain(snp.Endorsements(vek=_vek(case)), roots=amd.ARKS, now=case.now)


def _compare_vek(case: Case, _found: Any) -> None:
    same_certificate(_vek(case), case.values.get("vek", {}))


def _judge_snp_list(case: Case) -> RevocationList:
    """Verify a list by the ARK that it names and hold it against that ARK's intermediates.

    It must be current, and name none of those that AMD uses now.
    """
    (file,) = case.files
    parsed = RevocationList.parse(file.data, what="CRL")
    used = 0
    for data in amd.INTERMEDIATES.values():
        intermediate = Certificate.parse(data, what="intermediate certificate")
        if intermediate.issuer == parsed.issuer:
            current = verify_list(file.data, intermediate, roots=amd.ARKS, now=case.now)
            assert current is (parsed.this_update <= case.now <= parsed.next_update)
            used += 1
    if not used:
        raise Untrusted("CRL: none of the published roots made it")
    if not parsed.this_update <= case.now <= parsed.next_update:
        raise Untrusted("CRL: crl.current: expired, or not yet valid")
    return parsed


def _compare_snp_list(case: Case, found: RevocationList) -> None:
    values = case.values
    for name in ("this_update", "next_update"):
        assert name not in values or getattr(found, name) == at(values[name]), name
    if "revoked" in values:
        revoked = {int(n, 16) if isinstance(n, str) else n for n in values["revoked"]}
        assert found.revoked == revoked


# --- authorities

_CARRIED = {
    "amd-snp": amd.ARKS,
    "aws": aws.ROOTS,
    "azure": microsoft.ROOTS,
    "gcp": google.ROOTS,
    "intel-tdx": intel.ROOTS,
}


def _judge_roots(case: Case) -> None:
    """Verify that every certificate leads to a root that the library carries.

    An entry also keeps authorities that had ended at its time: their last day counts.
    """
    certificates = [c for f in case.files for c in chain.load_all(f.data, what=f.path)]
    carried = _CARRIED.get(case.platform) or tuple(r for some in _CARRIED.values() for r in some)
    roots = tuple(c for data in carried for c in chain.load_all(data, what="root"))
    if not any(c in roots for c in certificates):
        raise Untrusted("none of the certificates is a published root")
    for certificate in certificates:
        if certificate in roots:
            continue
        now = min(case.now, certificate.not_valid_after_utc - timedelta(seconds=1))
        if certificate.issuer.rfc4514_string().startswith("CN=ARK-"):
            der = certificate.public_bytes(chain.Encoding.DER)
            verify_intermediate(der, roots=amd.ARKS, now=now)
        else:
            chain.verify(certificate, intermediates=(), roots=roots, now=now, what="authority")


root_chain = Procedure(_judge_roots)
snp_report = Procedure(_judge_snp, _compare_snp)


PROCEDURES: tuple[tuple[str, str, Procedure], ...] = (
    (".*", r".*\bcrl\b.*", Procedure(_judge_snp_list, _compare_snp_list)),
    (
        ".*",
        r"V[CL]EK chain.*",
        Procedure(_judge_vek, _compare_vek),
    ),
    (".*", r"report.*", snp_report),
)
"""Platform, kind (regular expressions), procedure."""
