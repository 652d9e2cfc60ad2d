"""The long floods: `make flood [CONNECTIONS=100000] [TARGET=word]`; results.json keeps each figure.

Exit code 1 if a server's memory grew or its files stayed open; an honest client that was not served
ends the run at once.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from tests.flood.flood import findings, flood
from tests.flood.targets import TARGETS

_RESULTS = Path(__file__).resolve().parent / "results.json"
_WARM_UP = 20_000
"""Bad connections after which a server has the memory that it keeps: from there on it counts."""


def main() -> int:
    """Flood the targets that the command line names, all by default."""
    parser = argparse.ArgumentParser(prog="make flood", description=__doc__)
    parser.add_argument("--connections", type=int, default=100_000)
    parser.add_argument("--target", default="", help="a word of the target's name")
    arguments = parser.parse_args()
    kept = json.loads(_RESULTS.read_text()) if _RESULTS.exists() else {}
    bad = 0
    for name in (n for n in TARGETS if arguments.target in n):
        outcome = flood(name, warm_up=_WARM_UP, connections=arguments.connections)
        found = findings(outcome)
        kept[name] = {
            **asdict(outcome),
            "kernel": platform.release(),
            "load": round(os.getloadavg()[0], 1),
            "python": platform.python_version(),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        _RESULTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
        print(f"{name}: {outcome}", *found, sep="\n", flush=True)  # noqa: T201 - for people
        bad += bool(found)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
