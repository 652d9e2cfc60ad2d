"""The program in the how-to page runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.vectors import evidence

PAGE = Path(__file__).resolve().parents[3] / "docs/how-to/verify-in-python.md"
ITEM = evidence.items("amd-snp")["milan-v5-vcek-gcp"]


def program() -> str:
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def names(measurement: str) -> dict[str, object]:
    return {
        "report": evidence.read("amd-snp", ITEM, "report"),
        "vcek": evidence.read("amd-snp", ITEM, "vcek"),
        "expected_report_data": bytes(64),
        "crl": (evidence.folder() / "amd-snp/crl/milan_crl.der").read_bytes(),
        "expected_measurement": bytes.fromhex(measurement),
    }


def test_the_program_accepts_a_real_report(capsys: pytest.CaptureFixture[str]) -> None:
    exec(program(), names(ITEM["values"]["report"]["measurement"]))  # noqa: S102 - our own page
    assert "an example that looks at three claims" in capsys.readouterr().out


def test_the_program_refuses_another_measurement() -> None:
    with pytest.raises(SystemExit, match="measurement: found"):
        exec(program(), names("00" * 48))  # noqa: S102 - our own page
