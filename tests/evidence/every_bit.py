"""Is any bit of a signed report or quote without a signature over it?

    PYTHONPATH=src:. python tests/evidence/every_bit.py [FOLDER]

Flips every bit of one published item of each kind of report and quote, one after the other: none
may be accepted. Only what follows a quote's last length is covered by nothing; there, nothing that
the quote says may change. Prints one line; exits 1 if anything was accepted.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.attestation import snp
from constellation.attestation.roots import amd, intel
from constellation.attestation.tdx.quote import parse_quote
from constellation.attestation.tdx.verify import verify_signatures
from constellation.base.errors import FormatError, Untrusted
from tests.evidence.folder import Case, Folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["main"]

_REFUSED = (FormatError, Untrusted)


def _one_of_each_kind(folder: Folder) -> Iterator[Case]:
    seen = set()
    for platform, item in folder.items():
        kind, accepted = item["kind"], (item.get("expected") or {}).get("verdict")
        chip = re.match(r"report|(TDX|SGX) quote(?! \+ JSON)", kind)
        if chip and accepted == "accept" and kind not in seen:
            seen.add(kind)
            yield folder.case(platform, item)


def _judge(case: Case) -> tuple[bytes, int, Callable[[bytes], object]]:
    """Give a report's or quote's bytes, how many of them count, and what verifies them."""
    if case.item["kind"].startswith("report"):
        vek = snp.Endorsements(vek=case.get("vlek", "vcek", "vek"))

        def report(data: bytes) -> object:
            parsed = snp.parse_report(data)
            return snp.verify(parsed, endorsements=vek, roots=amd.ARKS, now=case.now)

        data = case.get("report")
        return data, len(data), report

    def quote(data: bytes) -> object:
        signed = verify_signatures(parse_quote(data), roots=intel.ROOTS, now=case.now)
        return signed.quote.signed, signed.pck

    data = case.get("quote")
    return data, len(data) - len(parse_quote(data).trailing), quote


def _accepted(case: Case) -> tuple[int, list[int]]:
    """Flip each bit; give how many were flipped and which were accepted."""
    data, size, verify = _judge(case)
    genuine, accepted = verify(data), []
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            found = verify(bytes(flipped))
        except _REFUSED:
            continue
        if bit < 8 * size or found != genuine:
            accepted.append(bit)
    return 8 * len(data), accepted


def main(words: list[str]) -> int:
    """Run all; give the exit code."""
    folder = Folder(Path(words[0])) if words else Folder.usual()
    flipped, items, bad = 0, 0, 0
    for case in _one_of_each_kind(folder):
        count, accepted = _accepted(case)
        flipped, items, bad = flipped + count, items + 1, bad + len(accepted)
        for bit in accepted[:3]:
            print(f"{case.item['id']}: byte {bit // 8:#x}, bit {bit % 8}: accepted")  # noqa: T201
    print(f"every bit of {items} reports and quotes: {flipped} flipped, {bad} accepted")  # noqa: T201
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
