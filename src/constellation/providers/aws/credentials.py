"""The user's credentials for AWS on the workstation, from where `aws` and Terraform take them.

In this order: the environment's access key; the profile's static key, or its `credential_process`;
else `aws configure export-credentials`, which knows single sign-on. Nothing is stored or logged.
Source: AWS SDKs and Tools Reference Guide, "Credential provider chain", "Process credentials".
"""

from __future__ import annotations

import asyncio
import configparser
import os
import shlex
import shutil
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base import proc
from constellation.base.errors import FormatError, UserError
from constellation.base.secret import Secret
from constellation.providers import answers
from constellation.providers.aws.signature import Credentials

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HINT", "WorkstationCredentials"]

HINT = "log in to AWS again, e.g. `aws sso login`; the same command goes on"
_PROCESS_S = 60.0
_MAX_FILE_BYTES = 256 * 1024


@dataclass(slots=True)
class WorkstationCredentials:
    """The `CredentialSource` of the workstation's calls."""

    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    _found: Credentials | None = field(default=None, repr=False)

    async def credentials(self, *, fresh: bool) -> Credentials:
        """Give the credentials. Raises UserError: there are none."""
        if fresh or self._found is None:
            self._found = await self._find()
        return self._found

    async def _find(self) -> Credentials:
        variables = self.environment
        if variables.get("AWS_ACCESS_KEY_ID") and variables.get("AWS_SECRET_ACCESS_KEY"):
            token = variables.get("AWS_SESSION_TOKEN", "")
            return Credentials(
                access_key_id=variables["AWS_ACCESS_KEY_ID"],
                secret_access_key=Secret(variables["AWS_SECRET_ACCESS_KEY"].encode()),
                session_token=Secret(token.encode()) if token else None,
                expires=None,
            )
        profile = variables.get("AWS_PROFILE") or "default"
        settings = await asyncio.to_thread(self._profile, profile)
        if settings.get("aws_access_key_id") and settings.get("aws_secret_access_key"):
            token = settings.get("aws_session_token", "")
            return Credentials(
                access_key_id=settings["aws_access_key_id"],
                secret_access_key=Secret(settings["aws_secret_access_key"].encode()),
                session_token=Secret(token.encode()) if token else None,
                expires=None,
            )
        if command := settings.get("credential_process"):
            return await _of_process(shlex.split(command))
        if (tool := shutil.which("aws", path=variables.get("PATH"))) is not None:
            words = ("configure", "export-credentials", "--format", "process")
            return await _of_process((tool, *words, "--profile", profile))
        raise UserError(
            f"no credentials for AWS: not in the environment, not in profile {profile}", hint=HINT
        )

    def _profile(self, profile: str) -> dict[str, str]:
        home = Path(self.environment.get("HOME") or Path.home())
        found: dict[str, str] = {}
        for variable, name, section in (
            (
                "AWS_CONFIG_FILE",
                "config",
                profile if profile == "default" else f"profile {profile}",
            ),
            ("AWS_SHARED_CREDENTIALS_FILE", "credentials", profile),
        ):
            path = Path(self.environment.get(variable) or home / ".aws" / name)
            parser = configparser.RawConfigParser()
            try:
                with path.open(encoding="utf-8") as file:
                    parser.read_string(file.read(_MAX_FILE_BYTES))
            except FileNotFoundError:
                continue
            except (OSError, UnicodeDecodeError, configparser.Error) as error:
                # configparser quotes lines, and a line may be a key
                raise UserError(
                    f"cannot be read: {type(error).__name__}", where=str(path)
                ) from None
            if parser.has_section(section):
                found |= dict(parser.items(section))
        return found


async def _of_process(argv: tuple[str, ...] | list[str]) -> Credentials:
    try:
        done = await proc.run(*argv, timeout_s=_PROCESS_S)
    except proc.Failed:
        # what it printed may hold a secret
        raise UserError(f"{Path(argv[0]).name} gave no credentials for AWS", hint=HINT) from None
    found = answers.parse(done.stdout, what="credentials for AWS")
    expires = found.text_or("Expiration", "")
    try:
        until = datetime.fromisoformat(expires) if expires else None
    except ValueError:
        raise FormatError("credentials for AWS: Expiration is no time") from None
    token = found.text_or("SessionToken", "")
    return Credentials(
        access_key_id=found.name("AccessKeyId"),
        secret_access_key=Secret(found.text("SecretAccessKey").encode()),
        session_token=Secret(token.encode()) if token else None,
        expires=until,
    )
