"""`constellation evidence`: show and verify evidence files, offline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from constellation.cli.output import result
from constellation.cli.run import settings, standard_options

if TYPE_CHECKING:
    from datetime import datetime

    from constellation.attestation.kinds import Verdict

__all__ = ["evidence"]

_FILE = click.Path(path_type=Path)
_MAX_FILE_BYTES = 64 * 1024 * 1024


@click.group()
def evidence() -> None:
    """Show and verify evidence files, without any network."""


@evidence.command()
@click.argument("files", nargs=-1, required=True, type=_FILE)
@standard_options
@click.pass_context
def show(context: click.Context, /, files: tuple[Path, ...], **chosen: Any) -> None:
    """Say what files are, by their content, and show their fields. Nothing is verified."""
    from constellation.attestation.show import show as describe

    shown = [(file, describe(_read(file))) for file in files]
    result(
        {
            "files": [
                {
                    "fields": [
                        {"meaning": f.meaning, "name": f.name, "value": f.value} for f in s.fields
                    ],
                    "file": str(file),
                    "kind": s.kind,
                }
                for file, s in shown
            ],
            "verified": False,
        },
        output=settings(context, chosen).output,
        text=lambda: "\n\n".join(
            "\n".join([f"{file}: {s.kind} (not verified)", *(f"  {f}" for f in s.fields)])
            for file, s in shown
        ),
    )


@evidence.command()
@click.option("--kind", help="What the files are; `--kind help` lists all kinds and their roles.")
@click.argument("files", nargs=-1, metavar="ROLE=FILE...")
@click.option(
    "--root", "roots", multiple=True, type=_FILE, help="Trusted authority; else the published ones."
)
@click.option("--crl", type=_FILE, help="Revocation list (AMD).")
@click.option("--collateral", type=_FILE, help="Intel's collateral as JSON.")
@click.option("--nonce", help="What the quote or document was made for, hexadecimal.")
@click.option("--report-data", help="What the chip's report commits to, 64 bytes in hexadecimal.")
@click.option("--policy", type=_FILE, help="Rules for the claims, as JSON.")
@click.option("--at", help="Time to verify at, e.g. 2026-11-22T12:00:00Z; else now.")
@standard_options
@click.pass_context
def verify(  # the options of one verification
    context: click.Context,
    /,
    *,
    kind: str | None,
    files: tuple[str, ...],
    roots: tuple[Path, ...],
    crl: Path | None,
    collateral: Path | None,
    nonce: str | None,
    report_data: str | None,
    policy: Path | None,
    at: str | None,
    **chosen: Any,
) -> None:
    """Verify files of one machine; with --policy, appraise them.

    Ends with 0 if they are authentic and acceptable, 3 for bad input, 4 if not authentic, 5 if the
    policy refuses them.
    """
    from constellation.attestation import kinds
    from constellation.attestation.policy_file import parse_policy

    output = settings(context, chosen).output
    if not kind or kind == "help":
        _list_kinds(output)
        return
    now = _time(at)
    given = kinds.Given(
        files=_roles(files),
        now=now,
        roots=tuple(_read(root) for root in roots),
        crl=_read(crl) if crl else None,
        collateral=_read(collateral) if collateral else None,
        nonce=_hex(nonce, "--nonce"),
        report_data=_hex(report_data, "--report-data"),
    )
    verdict = kinds.verify(kind, given, policy=parse_policy(_read(policy)) if policy else None)
    result(
        {
            "at": now.isoformat(),
            "claims": {name: _plain(value) for name, value in sorted(verdict.claims.items())},
            "kind": kind,
            "unchecked": list(verdict.unchecked),
            "verdict": _verdict(verdict),
        },
        output=output,
        text=lambda: _text(verdict, now),
    )


def _list_kinds(output: str) -> None:
    from constellation.attestation import kinds

    listed = {
        name: {
            "about": k.about,
            "needs": [_option(option) for option in k.wants],
            "optional": list(k.optional),
            "roles": list(k.required),
            "takes": [_option(option) for option in k.takes],
        }
        for name, k in kinds.KINDS.items()
    }
    result(
        {"kinds": listed},
        output=output,
        text=lambda: "\n".join(
            f"{name:14} {k.about}\n{'':14} "
            + " ".join(
                [
                    *(f"{role}=FILE" for role in k.required),
                    *(f"[{role}=FILE]" for role in k.optional),
                    *(f"{_option(option)} HEX" for option in k.wants),
                    *(f"[{_option(option)}]" for option in k.takes),
                ]
            )
            for name, k in kinds.KINDS.items()
        ),
    )


def _option(field: str) -> str:
    return "--root" if field == "roots" else "--" + field.replace("_", "-")


def _verdict(verdict: Verdict) -> str:
    return "accepted" if verdict.appraised else "authentic"


def _text(verdict: Verdict, now: datetime) -> str:
    said = (
        "accepted by the policy" if verdict.appraised else "authentic; not appraised: no --policy"
    )
    lines = [f"{verdict.kind}: {said}, at {now.isoformat()}", "", "Claims"]
    lines += [f"  {name}: {_plain(value)}" for name, value in sorted(verdict.claims.items())]
    lines += ["", "Unchecked"] + [f"  {line}" for line in verdict.unchecked]
    return "\n".join(lines)


def _plain(value: bytes | int) -> str | int:
    return value.hex() if isinstance(value, bytes) else value


def _roles(files: tuple[str, ...]) -> dict[str, bytes]:
    from constellation.base.errors import UserError

    found: dict[str, bytes] = {}
    for word in files:
        role, equals, name = word.partition("=")
        if not equals or not role or role in found:
            raise UserError(f"{word!r}: want ROLE=FILE, each role once", where="ROLE=FILE")
        found[role] = _read(Path(name))
    return found


def _read(path: Path) -> bytes:
    from constellation.base.errors import UserError

    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from None
    if len(data) > _MAX_FILE_BYTES:
        raise UserError(f"more than {_MAX_FILE_BYTES} bytes", where=str(path))
    return data


def _hex(text: str | None, option: str) -> bytes | None:
    from constellation.base.errors import UserError

    try:
        return None if text is None else bytes.fromhex(text)
    except ValueError:
        raise UserError(f"{text!r} is not hexadecimal", where=option) from None


def _time(text: str | None) -> datetime:
    from datetime import datetime

    from constellation.base import clock
    from constellation.base.errors import UserError

    if text is None:
        return clock.now()
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise UserError(
            f"{text!r} is not a time with a zone", where="--at", hint="e.g. 2026-11-22T12:00:00Z"
        )
    return found
