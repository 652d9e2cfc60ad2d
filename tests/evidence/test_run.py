"""Published evidence gets its verdicts; the run that says so notices what is not as published."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.evidence.folder import BESIDE, Folder
from tests.evidence.packages import fields
from tests.evidence.run import Outcome, main, results

if TYPE_CHECKING:
    from pathlib import Path


def test_all_that_was_published_gets_its_verdict() -> None:
    found = list(results(Folder.usual()))
    assert [r for r in found if r.why] == []
    assert len(found) > 100


def item_of(kind: str) -> dict[str, Any]:
    items = (i for _, i in Folder(BESIDE).items("amd-snp") if i["kind"] == kind)
    return json.loads(json.dumps(next(items)))


def edit_of(item: dict[str, Any], op: dict[str, Any], error: str) -> dict[str, Any]:
    return {"id": f"{op['op']}/{error}", "platform": "amd-snp", "base": item["id"], "ops": [op],
            "file": item["files"][0]["file"], "at": "report",
            "expected": {"verdict": "reject", "error": error}}  # fmt: skip


def written(path: Path, items: list[dict[str, Any]], edits: list[dict[str, Any]]) -> Folder:
    """Write a folder of one platform whose files lie in the published one."""
    (path / "amd-snp").mkdir()
    (path / "amd-snp" / "manifest.json").write_text(json.dumps({"items": items}))
    (path / "mutations.json").write_text(json.dumps({"mutations": edits}))
    return Folder(path)


FLIP = {"op": "xor", "offset": 100, "mask": 1}


@pytest.mark.parametrize(
    ("op", "error", "outcome"),
    [
        (FLIP, "signature", Outcome.REFUSED),
        (FLIP, "VCEK expired", Outcome.ANOTHER),
        ({"op": "xor", "offset": 100, "mask": 0}, "signature", Outcome.ANOTHER),
        ({"op": "rotate"}, "signature", Outcome.NOT_COVERED),
        ({"op": "policy", "policy": {"vmpl": 3}}, "VMPL", Outcome.REFUSED),
        ({"op": "policy", "policy": {"vmpl": 3}}, "debug", Outcome.ANOTHER),
        ({"op": "policy", "policy": {"min_tcb": {"snp": 255}}}, "TCB below", Outcome.REFUSED),
        ({"op": "policy", "policy": {"min_tcb": {"snp": 255}}}, "microcode", Outcome.ANOTHER),
        ({"op": "expect", "report_data": "ba" * 64}, "report data", Outcome.REFUSED),
        ({"op": "expect", "colour": "blue"}, "report data", Outcome.NOT_COVERED),
        ({"op": "scenario", "text": "something new"}, "signature", Outcome.NOT_COVERED),
        ({"op": "verify_at", "time": "2060-01-01T00:00:00Z"}, "VCEK expired", Outcome.REFUSED),
        ({"op": "verify_at", "time": "2060-01-01T00:00:00Z"}, "chip id", Outcome.ANOTHER),
    ],
)
def test_an_edit_counts_only_for_its_own_reason(
    tmp_path: Path, op: dict[str, Any], error: str, outcome: Outcome
) -> None:
    item = item_of("report-v3+VCEK")
    _, found = results(written(tmp_path, [item], [edit_of(item, op, error)]))
    assert found.outcome is outcome, found.why


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("a CRL, signed by the ARK, that lists the ASK as revoked", "intermediate revoked"),
        ("the ASVK is revoked", "revoked"),
        ("PCK certificate revoked", "PCK certificate revoked"),
        ("TCB signing certificate revoked", "revoked"),
        ("attest without TPM_GENERATED, signed by the AK", "magic"),
        ("AK not restricted", "AK attributes"),
        ("AK without fixedTPM", "fixedTPM"),
        ("quote over the SHA-1 bank", "SHA-1"),
        ("chip report of one machine with the quote of another", "AK of another VM"),
        ("report data of another purpose", "report data"),
        ("CRL missing", "CRL missing"),
        ("expired CRL", "CRL expired"),
        ("collateral missing", "PCK CRL missing"),
        ("expired collateral", "PCK CRL expired"),
    ],
)
def test_what_is_to_be_built_is_built_and_refused_for_its_reason(
    tmp_path: Path, words: str, error: str
) -> None:
    item = item_of("report-v3+VCEK")
    op = {"op": "scenario", "text": words}
    edits = [edit_of(item, op, error), edit_of(item, op, "unsupported version")]
    _, right, wrong = results(written(tmp_path, [item], edits))
    assert right.outcome is Outcome.REFUSED, right.why
    assert wrong.outcome is Outcome.ANOTHER


def test_an_item_that_is_not_as_published_is_told_with_why(tmp_path: Path) -> None:
    good, other, rejected, unknown, gone = (item_of("report-v3+VCEK") for _ in range(5))
    other["values"]["report"]["guest_svn"] += 1
    rejected["expected"] = {"verdict": "reject", "error": "signature"}
    unknown["kind"] = "report of next year's chip"[7:]
    gone["files"][0]["file"] = "nowhere.bin"
    for name in ("product", "notes", "sources", "independent_check"):
        good.pop(name, None)
    good["values"] = {}
    found = results(written(tmp_path, [good, other, rejected, unknown, gone], []))
    assert [r.outcome for r in found] == [
        Outcome.ACCEPTED,
        Outcome.ANOTHER,
        Outcome.ANOTHER,
        Outcome.NOT_COVERED,
        Outcome.ANOTHER,
    ]


def test_a_protocol_buffer_is_taken_apart() -> None:
    message = b"\x08\x96\x01" + b"\x12\x02hi" + b"\x12\x00"
    assert list(fields(message)) == [(1, 150), (2, b"hi"), (2, b"")]
    with pytest.raises(AssertionError, match="wire type 1"):
        list(fields(b"\x09" + bytes(8)))


def test_the_last_line_is_one_of_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    item = item_of("report-v3+VCEK")
    written(tmp_path, [item, item | {"kind": "?"}], [])
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == (
        "evidence: 1 accepted as expected, 0 refused as expected, "
        "0 with another verdict, 1 not covered"
    )
