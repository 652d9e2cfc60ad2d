"""How Terraform is run: init, plan, apply of that very plan, outputs; each bounded and told.

A run that is interrupted is asked to end and writes its state first. Terraform's own lock keeps two
runs apart, also on different machines with a remote backend.
Source: Terraform, "Command: init | plan | apply | output | state list"; OpenTofu has the same.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from constellation.base import proc
from constellation.base.errors import FormatError
from constellation.base.progress import Progress
from constellation.providers.terraform.faults import as_error
from constellation.providers.terraform.messages import Change, Reader
from constellation.providers.terraform.program import clean_environment

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.base.progress import Report
    from constellation.providers.terraform.folder import Folder
    from constellation.providers.terraform.program import Program

__all__ = ["Plan", "Terraform", "TerraformSettings"]

_INIT_S, _PLAN_S, _APPLY_S, _SHORT_S = 600.0, 900.0, 3600.0, 60.0
_ENDING_S = 300.0
_NO_STATE = "No state file was found"
_MAX_OUTPUT_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class TerraformSettings:
    """How the user wants it run; see `config.providers.cloud.Terraform`.

    `log` names the file for Terraform's own log of everything, None: none is written. That log may
    hold what the cloud answers: it is for people, and made on demand only.
    """

    plugin_folder: Path | None = None
    backend: str = ""
    backend_config: Path | None = None
    log: Path | None = None
    log_level: str = "DEBUG"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What applying would do; empty: nothing."""

    changes: tuple[Change, ...]

    def summary(self) -> str:
        """Say how many resources are made, changed, removed."""
        words = {"create": "to make", "update": "to change", "replace": "to replace",
                 "delete": "to remove"}  # fmt: skip
        counts = dict.fromkeys(words, 0)
        for change in self.changes:
            counts[change.action] = counts.get(change.action, 0) + 1
        said = [f"{n} {words.get(action, action)}" for action, n in counts.items() if n]
        return ", ".join(said) or "nothing to do"


class Terraform:
    """One folder and the program that works in it."""

    def __init__(self, program: Program, folder: Folder, settings: TerraformSettings) -> None:
        self._program, self._folder, self._settings = program, folder, settings

    async def init(self, *, report: Report) -> None:
        """Have the providers' programs. Raises Unavailable."""
        step = f"{self._program.name} init"
        report(Progress(step=step))
        settings = self._settings
        words = ["init", "-input=false", "-no-color"]
        if settings.plugin_folder is not None:
            words.append(f"-plugin-dir={settings.plugin_folder}")
        if settings.backend_config is not None:
            words.append(f"-backend-config={settings.backend_config}")
        try:
            await self._run(*words, timeout_s=_INIT_S)
        except proc.Failed as error:
            raise as_error(step, (), said=_said(error)) from None
        report(Progress(step=step, finished=True))

    async def plan(self, *, report: Report, destroy: bool = False) -> Plan:
        """Compare what is wanted with what exists, and keep the plan for `apply`.

        Raises:
            Conflict: another run holds the state, or a newer program wrote it.
            Unavailable, UserError: the cloud refused or did not answer.
        """
        step = f"{self._program.name} plan"
        report(Progress(step=step))
        words = ("-destroy",) if destroy else ()
        reader = Reader(step, report)
        await self._stream(
            reader, step, "plan", *words, f"-out={self._folder.plan}", timeout_s=_PLAN_S
        )
        report(Progress(step=step, finished=True))
        return Plan(changes=tuple(reader.changes))

    async def apply(self, plan: Plan, *, report: Report, step: str) -> None:
        """Do what was planned, and nothing else. Raises as `plan`."""
        reader = Reader(step, report, total=len(plan.changes))
        report(Progress(step=step, total=len(plan.changes), unit="resources"))
        try:
            await self._stream(reader, step, "apply", str(self._folder.plan), timeout_s=_APPLY_S)
        finally:
            self._folder.plan.unlink(missing_ok=True)
        report(Progress(step=step, finished=True))

    async def outputs(self) -> dict[str, Any]:
        """Give the module's outputs by name. Raises Unavailable, FormatError."""
        try:
            done = await self._run("output", "-no-color", "-json", timeout_s=_SHORT_S)
        except proc.Failed as error:
            raise as_error("outputs", (), said=_said(error)) from None
        try:
            if len(done) > _MAX_OUTPUT_BYTES:
                raise FormatError("outputs: more than 256 KiB")
            return {name: entry["value"] for name, entry in json.loads(done).items()}
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise FormatError("outputs: not what `output -json` prints") from None

    async def resources(self) -> tuple[str, ...]:
        """List the addresses of what the state says exists; data sources are left out.

        Raises:
            Conflict, Unavailable: the state cannot be read. Nobody may take that for "nothing".
        """
        try:
            done = await self._run("state", "list", timeout_s=_SHORT_S)
        except proc.Failed as error:
            if _NO_STATE in _said(error):
                return ()
            raise as_error("state list", (), said=_said(error)) from None
        found = done.decode(errors="replace").split()
        return tuple(a for a in found if not a.startswith("data.") and ".data." not in a)

    async def _run(self, *words: str, timeout_s: float) -> bytes:
        done = await proc.run(
            self._program.path,
            *words,
            timeout_s=timeout_s,
            env=self._environment(),
            cwd=self._folder.path,
        )
        return done.stdout

    async def _stream(self, reader: Reader, step: str, *words: str, timeout_s: float) -> None:
        verb, *rest = words
        try:
            await proc.stream(
                self._program.path,
                *(verb, "-input=false", "-no-color", "-json", *rest),
                timeout_s=timeout_s,
                on_line=reader.take,
                env=self._environment(),
                cwd=self._folder.path,
                ending_s=_ENDING_S,
            )
        except proc.Failed as error:
            raise as_error(
                step, reader.faults, said="\n".join(reader.unread) or str(error)
            ) from None

    def _environment(self) -> dict[str, str]:
        environment = clean_environment()
        if self._settings.log is not None:
            environment |= {
                "TF_LOG": self._settings.log_level,
                "TF_LOG_PATH": str(self._settings.log),
            }
        return environment


def _said(error: proc.Failed) -> str:
    if error.finished is None:
        return str(error)
    return error.finished.stderr.decode(errors="replace") or str(error)
