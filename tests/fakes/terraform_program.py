"""A small `terraform` for tests: keeps a state file, takes its lock, fails where it is told to.

It does what the real one does at the seam that we use: `version -json`, `init`, `plan -out`,
`apply` of that plan, `output -json`, `state list`; lines, exit codes and texts are the real one's.
`script(folder)` writes it; the folder's `behave.json` says what goes wrong.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["script"]

_PROGRAM = """#!{python}
import json, os, signal, sys, time
from pathlib import Path

behave = json.loads(Path({behave!r}).read_text())
verb, words = sys.argv[1], sys.argv[2:]
state, lock = Path("terraform.tfstate"), Path(".terraform.tfstate.lock.info")


def say(**message):
    print(json.dumps(message), flush=True)


def error(summary, detail="", address=""):
    say(type="diagnostic", diagnostic=dict(severity="error", summary=summary, detail=detail,
                                           address=address))
    sys.exit(1)


def read():
    return json.loads(state.read_text()) if state.exists() else {{"version": 4, "resources": []}}


def write(found):
    state.write_text(json.dumps(found))


if verb == "version":
    print(json.dumps({{"terraform_version": behave.get("version", "1.11.4")}}))
elif verb == "init":
    if behave.get("no_registry"):
        sys.stderr.write("Error: Failed to query available provider packages\\n")
        sys.exit(1)
    assert "-input=false" in words
elif verb == "plan":
    if lock.exists():
        error("Error acquiring the state lock", "resource temporarily unavailable")
    if read()["version"] != 4:
        error("Error acquiring the state lock",
              "Error message: Unsupported state file format: The state file does not support "
              "state version 5, which is required. Terraform acquires a state lock to protect")
    wanted = [] if "-destroy" in words else behave["resources"]
    have = read()["resources"]
    for address in wanted:
        if address not in have:
            say(type="planned_change", change=dict(resource=dict(addr=address), action="create"))
    for address in have:
        if address not in wanted:
            say(type="planned_change", change=dict(resource=dict(addr=address), action="delete"))
    out = next(w for w in words if w.startswith("-out=")).removeprefix("-out=")
    Path(out).write_text(json.dumps(wanted))
elif verb == "apply":
    wanted = json.loads(Path(words[-1]).read_text())
    found = read()
    lock.write_text("held")
    signal.signal(signal.SIGINT, lambda *_: (lock.unlink(), write(found), sys.exit(1)))
    try:
        for address in [a for a in found["resources"] if a not in wanted]:
            if address in behave.get("stays", []):
                error("deleting", "DependencyViolation", address)
            found["resources"].remove(address)
            write(found)
        for address in [a for a in wanted if a not in found["resources"]]:
            hook = dict(resource=dict(addr=address), action="create")
            if address == behave.get("hangs"):
                found["resources"].append(address)
            say(type="apply_start", hook=hook)
            if address == behave.get("fails"):
                error(behave["summary"], behave.get("detail", ""), address)
            if address == behave.get("hangs"):
                time.sleep(60)
            found["resources"].append(address)
            write(found)
            say(type="apply_complete", hook=hook)
        found["outputs"] = behave.get("outputs", {{}})
        write(found)
    finally:
        lock.unlink(missing_ok=True)
elif verb == "output":
    print(json.dumps({{k: {{"value": v}} for k, v in read().get("outputs", {{}}).items()}}))
elif verb == "state":
    if not state.exists():
        sys.stderr.write("No state file was found!\\n")
        sys.exit(1)
    print("\\n".join(read()["resources"]))
else:
    sys.exit(2)
"""


def script(folder: Path, **behave: object) -> Path:
    """Write the program and what it does wrong; called again, it behaves anew."""
    file, told = folder / "terraform", folder / "behave.json"
    told.write_text(json.dumps(behave))
    file.write_text(_PROGRAM.format(python=sys.executable, behave=str(told)))
    file.chmod(0o755)
    return file
