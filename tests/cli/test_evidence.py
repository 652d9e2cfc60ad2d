"""`constellation evidence`: what it shows, its verdicts and exit codes, on published files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cli.test_transcripts import run
from tests.vectors import evidence

if TYPE_CHECKING:
    from pathlib import Path

NITRO = evidence.folder() / "aws" / "nitrotpm-vaportpm" / "document.cose"
NONCE = evidence.items("aws")["nitrotpm-vaportpm"]["values"]["nonce"]
AT = "2026-02-03T11:00:00Z"


def verify(folder: Path, *words: str) -> tuple[int, str, str]:
    done = run(folder, "evidence", "verify", "--kind", "nitro-tpm", *words)
    return done.returncode, done.stdout, done.stderr


def test_an_authentic_document_is_0_and_says_that_nothing_was_appraised(tmp_path: Path) -> None:
    code, out, _ = verify(tmp_path, f"document={NITRO}", "--nonce", NONCE, "--at", AT)
    assert code == 0
    assert out.startswith("nitro-tpm: authentic; not appraised: no --policy, at 2026-02-03T11:00")
    assert "\nUnchecked\n" in out


def test_json_has_verdict_claims_and_what_went_unchecked(tmp_path: Path) -> None:
    words = (f"document={NITRO}", "--nonce", NONCE, "--at", AT, "-o", "json")
    code, out, _ = verify(tmp_path, *words)
    found = json.loads(out)
    assert (code, found["verdict"], found["kind"]) == (0, "authentic", "nitro-tpm")
    assert len(found["claims"]["pcr4"]) == 96
    assert found["unchecked"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--nonce", "00", "--at", AT), 4, "expected 00"),
        (("--nonce", NONCE, "--at", "2026-02-04T11:00:00Z"), 4, "valid from"),
        (("--at", AT), 3, "--nonce is required"),
        (("--nonce", "xy", "--at", AT), 3, "not hexadecimal"),
        (("--nonce", NONCE, "--at", "yesterday"), 3, "not a time with a zone"),
        (("--nonce", NONCE, "--at", AT, "quote=missing"), 3, "cannot be read"),
        (("--nonce", NONCE, "--at", AT, "extra"), 3, "want ROLE=FILE"),
    ],
)
def test_each_failure_has_its_exit_code(
    tmp_path: Path, words: tuple[str, ...], code: int, says: str
) -> None:
    found, out, err = verify(tmp_path, f"document={NITRO}", *words)
    assert (found, out) == (code, "")
    assert says in err


def test_a_policy_accepts_or_refuses_with_every_finding(tmp_path: Path) -> None:
    words = (f"document={NITRO}", "--nonce", NONCE, "--at", AT)
    _, out, _ = verify(tmp_path, *words, "-o", "json")
    claims = json.loads(out)["claims"]
    rules = {name: {"exactly": value} for name, value in claims.items()}
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps(rules))
    code, out, _ = verify(tmp_path, *words, "--policy", str(policy))
    assert code == 0
    assert "accepted by the policy" in out
    del rules["pcr4"]
    rules["pcr7"] = {"one_of": []}
    policy.write_text(json.dumps(rules))
    code, _, err = verify(tmp_path, *words, "--policy", str(policy))
    assert code == 5
    assert "pcr4: no rule" in err
    assert "pcr7: found" in err
    policy.write_text('{"pcr4": {"maybe": 1}}')
    assert verify(tmp_path, *words, "--policy", str(policy))[0] == 3


def test_show_names_kind_and_fields_of_each_file(tmp_path: Path) -> None:
    hcl = evidence.folder() / "azure" / "snp-v1-milan" / "hcl_report.bin"
    done = run(tmp_path, "evidence", "show", str(NITRO), str(hcl))
    assert done.returncode == 0
    assert f"{NITRO}: AWS Nitro attestation document (not verified)" in done.stdout
    assert "\n  chip_report.policy: 196639 (0x3001f: smt" in done.stdout
    junk = tmp_path / "junk"
    junk.write_bytes(b"\x01\x02\x03")
    assert run(tmp_path, "evidence", "show", str(junk)).returncode == 3


def test_kinds_are_listed(tmp_path: Path) -> None:
    done = run(tmp_path, "evidence", "verify", "--kind", "help")
    assert done.returncode == 0
    assert "azure-snp" in done.stdout
    assert run(tmp_path, "evidence", "verify", "--kind", "other").returncode == 3
