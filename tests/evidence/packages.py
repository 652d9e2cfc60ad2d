"""Is the evidence judged well that Google's Go modules carry as test data?

    PYTHONPATH=src:. python tests/evidence/packages.py

For people without a folder of published evidence: five modules of fixed version and digest come by
the ordinary client (`go mod download`, the project's own toolchain), their test data is laid out as
such a folder, with the registers that the modules' tests expect, and `run` judges it. Nothing of it
is kept.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from constellation.releases import lock
from constellation.releases.toolchain import ensure_toolchain
from tests.evidence import run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["fields", "main"]

_MODULES = {
    "go-tpm-tools": ("v0.4.11", "h1:+Qgcs+l0XcWXFMU3e2HJJKnlEQZXVrtqr3WaJPVlZaE="),
    "go-attestation": ("v0.6.4", "h1:FtzlaC+MNJuSjZzM3LREPIs1llTlIsfU/+d4Jsb/cW4="),
    "go-eventlog": ("v0.0.2", "h1:Q3XESKw1xuO7+U37PmFGmteQqprL8U5/linAiuy3oIY="),
    "go-sev-guest": ("v0.15.0", "h1:Xzfut5mbhcVb7TyPiyc5PolLUzdai7VH3QpyvXwcW9Y="),
    "go-tdx-guest": ("v0.3.1", "h1:gl0KvjdsD4RrJzyLefDOvFOUH3NAJri/3qvaL5m83Iw="),
}
"""Module of github.com/google: version, digest as in a go.sum."""

_BANKS = {4: "sha1", 11: "sha256", 12: "sha384"}
_VARINT_MORE = 0x80
_VARIABLE = re.compile(r"^var (\w+) = eventLog\{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
"""One log in the source of a test: name, body."""


def fetch() -> Mapping[str, Path]:
    """Fetch the modules; gives each one's folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "constellation"
    wheel = lock.load().toolchain
    go = asyncio.run(ensure_toolchain(wheel, cache=cache, report=lambda _: None))
    found = {}
    for name, (version, digest) in _MODULES.items():
        done = subprocess.run(
            (str(go.go), "mod", "download", "-json", f"github.com/google/{name}@{version}"),
            env=dict(go.environment), cwd="/", check=True, capture_output=True,
        )  # fmt: skip
        answer = json.loads(done.stdout)
        assert answer["Sum"] == digest, f"{name}: {answer['Sum']}"
        found[name] = Path(answer["Dir"])
    return found


@dataclass
class Layout:
    """A folder of evidence that is being written."""

    path: Path
    items: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(
        self, platform: str, item_id: str, kind: str, files: Mapping[str, bytes], **more: Any
    ) -> None:
        """Add an entry; `files` are by role."""
        listed = []
        for number, (role, data) in enumerate(files.items()):
            name = f"{item_id}/{number}"
            path = self.path / platform / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            listed.append({"role": role, "file": name})
        entry = {"id": item_id, "kind": kind, "files": listed, "expected": {"verdict": "accept"}}
        self.items.setdefault(platform, []).append(entry | more)

    def done(self) -> None:
        """Write the manifests."""
        for platform, items in self.items.items():
            text = json.dumps({"items": items})
            (self.path / platform / "manifest.json").write_text(text)


def lay_out(modules: Mapping[str, Path], path: Path) -> None:
    """Write what the modules carry as a folder of evidence."""
    layout = Layout(path)
    _tpm_logs(layout, modules["go-tpm-tools"])
    _certificates(layout, modules["go-tpm-tools"])
    _attestations(layout, modules["go-tpm-tools"])
    for name in ("ebs_event_missing", "option_rom", "crypto_agile", "short_no_action", "sb_cert"):
        data = (modules["go-attestation"] / f"attest/testdata/{name}_eventlog").read_bytes()
        layout.add("tpm-eventlog", name, "TCG event log", {"log": data})
    _cc_logs(layout, modules["go-eventlog"])
    old = (modules["go-eventlog"] / "testdata/legacydata/linux_tpm12.json").read_bytes()
    refused = {"verdict": "reject", "error": "TPM 1.2"}
    layout.add("tpm-eventlog", "tpm12", "TPM 1.2 dump", {"dump": old}, expected=refused)
    _chips(layout, modules)
    layout.done()


def _tpm_logs(layout: Layout, module: Path) -> None:
    test = (module / "server/eventlog_test.go").read_text()
    embeds = (module / "internal/test/test_data.go").read_text()
    files = {var: name for name, var in re.findall(r"//go:embed (\S+)\n\s+(\w+)\s+\[\]", embeds)}
    for name, body in _VARIABLE.findall(test):
        (raw,) = re.findall(r"RawLog:\s*test\.(\w+)", body)
        banks = {
            bank.lower(): dict(re.findall(r'(\d+):\s*decodeHex\("([0-9a-f]+)"\)', pcrs))
            for bank, pcrs in re.findall(
                r"HashAlgo_(\w+),\n\s+Pcrs: map\[uint32\]\[\]byte\{(.*?)\n\s+\}", body, re.DOTALL
            )
        }
        data = (module / "internal/test" / files[raw]).read_bytes()
        expected = {"verdict": "accept", "pcr_banks": banks}
        layout.add(
            "tpm-eventlog", name, "TCG event log + PCR banks", {"log": data}, expected=expected
        )


def _certificates(layout: Layout, module: Path) -> None:
    for path in sorted((module / "internal/test/certificates").glob("*_cert.pem")):
        kind = "GCE EK certificate" if "_enc_" in path.name else "GCE AK certificate"
        data = {"certificate": path.read_bytes()}
        layout.add("gcp", path.stem, kind, data, verify_at="2025-01-01T00:00:00Z")


def _attestations(layout: Layout, module: Path) -> None:
    for path in sorted((module / "internal/test/attestations").glob("gce-*.pb")):
        files = {}
        for number, value in fields(path.read_bytes()):
            match number, value:
                case 2, bytes():  # a quote: TPMS_ATTEST, TPMT_SIGNATURE, registers
                    quote = dict(fields(value))
                    values = list(fields(quote[3]))
                    bank = _BANKS[dict(values)[1]]
                    pcrs = [dict(fields(pair)) for number, pair in values if number != 1]
                    registers = {str(pcr.get(1, 0)): pcr[2].hex() for pcr in pcrs}
                    files[f"tpms_attest {bank}"] = quote[1]
                    files[f"tpmt_signature {bank}"] = quote[2]
                    files[f"pcrs {bank}"] = json.dumps(registers).encode()
                case 3, bytes():
                    files["tcg event log"] = value
                case 6, bytes():
                    files["ak_cert"] = value
        nonce = path.stem.rpartition("nonce")[2] if "-no-nonce" not in path.stem else ""
        layout.add(
            "gcp", path.stem, "GCE vTPM attestation", files,
            verify_at="2025-01-01T00:00:00Z", values={"nonce": nonce},
        )  # fmt: skip


def _cc_logs(layout: Layout, module: Path) -> None:
    test = (module / "ccel/cceventlog_test.go").read_text()
    for name, body in _VARIABLE.findall(test):
        (file,) = re.findall(r'fname:\s*"\.\./(\S+)"', body)
        rtmrs = re.findall(r'Index:\s*(\d),\s*Digest: \[\]byte\("((?:[^"\\]|\\.)*)"\)', body)
        registers = {n: codecs.escape_decode(text.encode())[0].hex() for n, text in rtmrs}
        path = module / file
        if path.is_file():  # one is left out of the module
            expected = {"verdict": "accept", "rtmr": registers}
            data = {"ccel log": path.read_bytes()}
            layout.add("tpm-eventlog", f"cc-{name}", "CCEL", data, expected=expected)


def _chips(layout: Layout, modules: Mapping[str, Path]) -> None:
    data = modules["go-sev-guest"] / "verify/testdata"
    files = {"report": (data / "attestation.bin").read_bytes(),
             "vcek": (data / "vcek.testcer").read_bytes()}  # fmt: skip
    # a guest that may be debugged: authentic, and refused by every default policy
    expected = {"verdict": "accept", "policy_reject": "debug"}
    layout.add(
        "amd-snp", "milan", "report-v2+VCEK", files,
        verify_at="2022-09-24T01:00:00Z", expected=expected,
    )  # fmt: skip
    quote = modules["go-tdx-guest"] / "testing/testdata/tdx_prod_quote_SPR_E4.dat"
    layout.add(
        "intel-tdx", "spr", "TDX quote v4", {"quote": quote.read_bytes()},
        verify_at="2023-07-01T00:00:00Z",
    )  # fmt: skip


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Take a protocol buffer apart: number and value of each field, numbers and bytes only."""
    offset = 0

    def varint() -> int:
        nonlocal offset
        value = shift = 0
        while True:
            byte = message[offset]
            offset += 1
            value |= (byte & (_VARINT_MORE - 1)) << shift
            shift += 7
            if byte < _VARINT_MORE:
                return value

    while offset < len(message):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        else:
            assert key & 7 == 2, f"wire type {key & 7}"
            size = varint()
            yield key >> 3, message[offset : offset + size]
            offset += size


def main() -> int:
    """Fetch, lay out, judge; give the exit code."""
    with tempfile.TemporaryDirectory(prefix="evidence") as name:
        lay_out(fetch(), Path(name))
        return run.main([name])


if __name__ == "__main__":
    sys.exit(main())
