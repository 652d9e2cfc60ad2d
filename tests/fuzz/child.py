"""One coverage-guided run of one target: `python -m tests.fuzz.child NAME SELF [for libFuzzer]`.

SELF is a program that does the same again: libFuzzer's merge starts it. Modules are instrumented as
they are imported, so this file imports nothing of ours before. What a target does not allow ends
the process and leaves the input behind (libFuzzer's artifact).
"""

from __future__ import annotations

import sys

import atheris


def main() -> None:
    """Instrument, then hand over to libFuzzer, which does not return."""
    name, own_program, *arguments = sys.argv[1:]
    with atheris.instrument_imports(include=["constellation", "ruamel", "tarfile"]):
        from tests.fuzz.table import TARGETS  # noqa: PLC0415 - instrumented
    target = TARGETS[name]
    atheris.Setup([own_program, *arguments], lambda data: target.try_(data) and None)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
