"""What runs as root, and how: one question that names it all, then one `sudo` for each program.

Everything else runs as the user, and every file in cache and workspace is the user's. A user who is
root already is asked nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import constellation
from constellation.base.errors import Unavailable, UserError
from constellation.base.told import told
from constellation.cli.run import confirm, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from constellation.cli.run import Settings

__all__ = [
    "REASONS",
    "as_root",
    "ask_for_root",
    "authenticate",
    "is_root",
    "keep_permission",
    "run_as_root",
]

REASONS = (
    "try kernel features in throwaway namespaces",
    "install Debian packages into the node image, never on this machine",
    "unpack Kubernetes' images into your cache (mounts in a namespace)",
    "run the local cloud's daemon until `mini down`: nodes, network, loop devices, inotify limit",
)

# sudo forgets after 5 to 15 minutes (sudoers(5), timestamp_timeout); a build may take longer
_REFRESH_S = 60.0

_KEPT = ("XDG_CACHE_HOME", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE")


def is_root() -> bool:
    """Say whether this process may do it all itself."""
    return os.geteuid() == 0


def ask_for_root(chosen: Settings) -> None:
    """Say what will be done as root, ask once, and get sudo's permission; nothing for root.

    Raises:
        UserError: the answer was no, nobody was there to give one, or sudo refused.
    """
    if is_root():
        return
    listed = "\n".join(f"  - {reason}" for reason in REASONS)
    confirm(f"As root, by sudo, this will\n{listed}\nGo on?", chosen=chosen)
    run(authenticate())


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


@contextlib.asynccontextmanager
async def keep_permission() -> AsyncIterator[None]:
    """Renew sudo's permission while the work inside lasts; nothing for root."""
    if is_root():
        yield
        return

    async def renew() -> None:
        while True:
            await asyncio.sleep(_REFRESH_S)
            process = await asyncio.create_subprocess_exec(
                *("sudo", "--non-interactive", "--validate"),
                stdin=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
            await process.wait()

    task = asyncio.create_task(renew())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def run_as_root(argv: Sequence[str], *, timeout_s: float) -> bytes:
    """Run a program as root to its end, in our own session: sudo's permission is tied to it.

    Gives what it wrote to standard output.

    Raises:
        ConstellationError: what it ended with, if it is one of our programs.
        Unavailable: it did not start, end in time, or end well; has the end of what it said.
    """
    name = argv[-1] if len(argv) == 1 else " ".join(argv[1:3])
    try:
        process = await asyncio.create_subprocess_exec(
            *as_root(argv),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise Unavailable(f"{name} did not start: {error.strerror}") from error
    try:
        async with asyncio.timeout(timeout_s):
            said, complained = await process.communicate()
    except TimeoutError:
        raise Unavailable(f"{name} did not end within {timeout_s:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                process.terminate()
    if process.returncode != 0:
        if ours := told(complained.decode(errors="replace")):
            raise ours
        tail = (complained or said).decode(errors="replace").strip()[-1500:]
        raise Unavailable(f"{name} ended with {process.returncode}: {tail}")
    return said
