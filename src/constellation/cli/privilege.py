"""What runs as root, and how: one question that names it all, then one `sudo` for each program.

Only two things need root: building node image and unpacked images, and the daemon of the local
cloud. Everything else runs as the user. A user who is root
already is asked nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import constellation
from constellation.base.errors import Unavailable, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["REASONS", "as_root", "authenticate", "is_root", "run_as_root"]

REASONS = (
    "build the node image and unpack Kubernetes' images (package scripts and mounts in namespaces)",
    "run the local cloud's daemon: nodes, network namespace, loop devices, until `mini down`",
)

_KEPT = ("XDG_CACHE_HOME", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE")


def is_root() -> bool:
    """Say whether this process may do it all itself."""
    return os.geteuid() == 0


async def authenticate() -> None:
    """Ask for the user's password once, if sudo wants one; nothing for root.

    Raises:
        UserError: there is no sudo, or it refused.
    """
    if is_root():
        return
    hint = "run the command as root, or as a user who may use sudo"
    try:
        # with our terminal: sudo asks there, never through us
        process = await asyncio.create_subprocess_exec("sudo", "--validate")
        code = await process.wait()
    except OSError as error:
        raise UserError(f"sudo did not start: {error.strerror}", hint=hint) from None
    if code != 0:
        raise UserError("sudo refused", hint=hint)


def as_root(argv: Sequence[str]) -> tuple[str, ...]:
    """Give the words that run `argv` as root with this program's modules; unchanged for root."""
    source = str(Path(constellation.__file__).resolve().parents[1])
    kept = [f"{name}={os.environ[name]}" for name in _KEPT if name in os.environ]
    environment = ("env", f"PYTHONPATH={source}", "PYTHONDONTWRITEBYTECODE=1", *kept)
    return (*(() if is_root() else ("sudo", "--non-interactive")), *environment, *argv)


async def run_as_root(argv: Sequence[str], *, timeout_s: float) -> None:
    """Run a program as root to its end, in our own session: sudo's permission is tied to it.

    Raises:
        Unavailable: it did not start, end in time, or end well; has the end of what it said.
    """
    name = argv[-1] if len(argv) == 1 else " ".join(argv[1:3])
    try:
        process = await asyncio.create_subprocess_exec(
            *as_root(argv),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as error:
        raise Unavailable(f"{name} did not start: {error.strerror}") from error
    try:
        async with asyncio.timeout(timeout_s):
            said, _ = await process.communicate()
    except TimeoutError:
        raise Unavailable(f"{name} did not end within {timeout_s:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                process.terminate()
    if process.returncode != 0:
        tail = said.decode(errors="replace").strip()[-1500:]
        raise Unavailable(f"{name} ended with {process.returncode}: {tail}")
