"""How is one published edit tried, by the platform of its base?

A procedure returns when the edit gets its expected verdict, for the reason that the entry names
where the room's tests know it; else it raises.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from constellation.attestation import kinds
from constellation.attestation.kinds import Given
from constellation.base.errors import FormatError, Untrusted
from tests.evidence.items import QUOTE, TIMELESS
from tests.unit.attestation.kinds import test_published as clouds
from tests.unit.attestation.snp import test_evidence as snp
from tests.unit.attestation.tdx import test_tdx_verify_published as tdx
from tests.unit.attestation.tpm import test_eventlog as logs
from tests.vectors import evidence

if TYPE_CHECKING:
    from collections.abc import Callable

    Edit = dict[str, Any]

__all__ = ["NotKnownError", "procedure_of"]


class NotKnownError(Exception):
    """An edit of a form that is not known here."""


_ANY: Any = ((Untrusted, FormatError), ".")
"""For a reason in words that the room's tests do not know: the class of error alone is compared."""


def _snp(edit: Edit) -> None:
    name, reason = edit["id"], edit["expected"].get("error", "")
    if not any(re.search(words, reason) for words in snp.ERRORS):
        snp.ERRORS[re.escape(reason)] = _ANY
    if name in snp.EDITS:
        snp.test_an_edit_gets_its_verdict(name)
    elif edit["at"] == "policy" and name.rpartition("/")[2] in snp.POLICIES:
        snp.test_a_policy_refuses_what_its_entry_says(name.rpartition("/")[2])
    elif name == "snp/time/crl-stale-milan":
        snp.test_a_stale_list_is_a_finding()
    else:
        raise NotKnownError(f"an edit of {edit['at']}")


def _tdx(edit: Edit) -> None:
    tdx.WHY.setdefault(edit["expected"].get("error", ""), _ANY)
    if "file" in edit:
        tdx.test_a_changed_quote_is_refused_for_the_expected_reason(edit["id"])
    elif "collateral-tdx-b0c06f-2025-06" not in tdx.ITEMS:
        raise NotKnownError("an edit of other collateral than that of the published folder")
    else:
        tdx.test_changed_collateral_is_refused_for_the_expected_reason(edit["id"])


_CLOUDS = (
    ("Azure SNP", "azure-snp", {"hcl_report": "hcl_report", "vcek": "vcek"} | QUOTE),
    ("Azure TDX", "azure-tdx", {"hcl_report": "hcl_report", "td_quote": "td_quote"} | QUOTE),
    ("GCE vTPM quote", "gce-vtpm", QUOTE | {"signature": "ECDSA", "ak_certificate": "ak chain"}),
    ("NitroTPM", "nitro-tpm", {"document": "COSE_Sign1"}),
    ("Nitro Enclave", "nitro-enclave", {"document": "COSE_Sign1"}),
)


def _cloud(edit: Edit) -> None:
    item = evidence.items(edit["platform"])[edit["base"]]
    found = [(kind, roles) for begin, kind, roles in _CLOUDS if item["kind"].startswith(begin)]
    if not found or edit["expected"]["verdict"] != "reject":
        raise NotKnownError(f"an edit of {item['kind']}")
    ((kind, roles),) = found
    given = {ours: evidence.read(edit["platform"], item, role) for ours, role in roles.items()}
    values = item["values"]
    nonce = values["nonce"] if "nonce" in values else values["tpms_attest"]["extra_data"]
    how: dict[str, Any] = {"nonce": bytes.fromhex(nonce or "")}
    clouds.judge(kind, given, item, **how)  # the base itself is authentic
    clouds.apply(edit, given, how)
    with pytest.raises((Untrusted, FormatError)):
        clouds.judge(kind, given, item, **how)


def _log(edit: Edit) -> None:
    logs.test_an_edited_log_gets_its_verdict(edit["id"])


def _ima(edit: Edit) -> None:
    item = evidence.items("ima")[edit["base"]]
    given = evidence.read("ima", item, "list").splitlines(keepends=True)
    ((operation,), registers) = edit["ops"], {"10": item["values"]["pcr10_sha256"]}
    lines, why = _changed(given, operation["change"])
    files = {"list": b"".join(lines), "pcrs": json.dumps(registers).encode()}
    if edit["expected"]["verdict"] == "accept":
        del files["pcrs"]  # of a list that no machine made, nobody knows the register
        found = kinds.verify("ima", Given(files=files, now=TIMELESS), policy=None)
        assert found.claims["violations"] == item["values"]["violations"] + 1
        return
    with pytest.raises((Untrusted, FormatError), match=why):
        kinds.verify("ima", Given(files=files, now=TIMELESS), policy=None)


def _changed(lines: list[bytes], change: str) -> tuple[list[bytes], str]:
    """Follow a change that is described in words; give also what must be said of it."""
    numbers = [int(n) for n in re.findall(r"\d+", change)]
    out, index = list(lines), numbers[0] - 1 if numbers else 0
    fields = out[index].rstrip(b"\n").split(b" ")
    if change.startswith("change the path of entry"):
        fields[4] += b"x"
        out[index] = b" ".join(fields) + b"\n"
        return out, f"line {index + 1}: template hash"
    if change.startswith("change one nibble of the file digest of entry"):
        last = b"1" if fields[3][-1:] == b"0" else b"0"
        out[index] = b" ".join([*fields[:3], fields[3][:-1] + last, *fields[4:]]) + b"\n"
        return out, f"line {index + 1}: template hash"
    if change.startswith("drop entry"):
        del out[index]
        return out, "PCR 10 replays"
    if change.startswith("keep the first"):
        return out[: index + 1], "PCR 10 replays"
    if change.startswith("all-zero template hash"):
        algorithm, _, digest = fields[3].rpartition(b":")
        zeros = [fields[0], b"0" * 40, fields[2], algorithm + b":" + b"0" * len(digest)]
        out[index] = b" ".join([*zeros, *fields[4:]]) + b"\n"
        return out, "."
    raise NotKnownError(change)


_BY_PLATFORM: dict[str, Callable[[Edit], None]] = {
    "amd-snp": _snp,
    "intel-tdx": _tdx,
    "azure": _cloud,
    "gcp": _cloud,
    "aws": _cloud,
    "tpm-eventlog": _log,
    "ima": _ima,
}


def procedure_of(platform: str) -> Callable[[Edit], None] | None:
    """Give the procedure for edits of a platform's files; None: it is not known."""
    return _BY_PLATFORM.get(platform)
