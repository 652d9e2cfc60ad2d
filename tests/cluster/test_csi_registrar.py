"""Our registrar of CSI drivers, as kubelet meets it: the real program, and kubelet's two calls.

Messages are written by hand (pluginregistration/v1/api.proto: texts in fields 1 to 4, a truth in
field 1), so that nothing of the program's own libraries is believed.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from grpclib.client import Channel
from grpclib.const import Cardinality
from grpclib.exceptions import StreamTerminatedError

from constellation.base.progress import silent
from constellation.config.workspace import cache_folder
from constellation.releases import lock as locks
from constellation.releases import source
from constellation.releases.clouds import CLOUDS
from constellation.releases.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = [pytest.mark.cluster, pytest.mark.clouds]

DRIVER = "ebs.csi.aws.com"
_PROGRAM = "csi-registrar"
_SERVICE = "/pluginregistration.Registration/"


@dataclasses.dataclass(frozen=True)
class Raw:
    """A message as its bytes."""

    data: bytes = b""

    def SerializeToString(self) -> bytes:  # noqa: N802 - grpclib's codec calls it so
        return self.data

    @classmethod
    def FromString(cls, data: bytes) -> Raw:  # noqa: N802 - the same
        return cls(data)


def _text(field: int, value: str) -> bytes:
    return bytes((field << 3 | 2, len(value))) + value.encode()


@pytest.fixture(scope="module")
def program() -> Path:
    """Have the program of the lock, built here if the cache has none."""
    locked = locks.load()
    recipe = CLOUDS["aws"]
    only = tuple(m for m in recipe.modules if m.folder == _PROGRAM)
    made = asyncio.run(
        source.build_cloud(
            dataclasses.replace(recipe, modules=only, images=()),
            modules=locks.artifacts_folder(),
            wheel=locked.toolchain,
            expected=locked.clouds["aws"].source,
            store=Store(cache_folder()),
            report=silent,
        )
    )
    return Store(cache_folder()).path(made[_PROGRAM].sha256)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder with a short name: a socket's path has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="csi") as name:
        yield Path(name)


@contextlib.asynccontextmanager
async def _started(
    program: Path, folder: Path, *, driver: str = DRIVER
) -> AsyncIterator[asyncio.subprocess.Process]:
    copy = folder / _PROGRAM
    copy.write_bytes(program.read_bytes())
    copy.chmod(0o755)
    (folder / "plugins_registry").mkdir()
    running = await asyncio.create_subprocess_exec(
        str(copy), driver, str(folder / "csi.sock"), str(folder / "plugins_registry"),
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()


async def _appears(path: Path) -> None:
    for _ in range(400):
        if path.is_socket():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"no {path.name}")


async def _call(path: Path, method: str, message: bytes = b"") -> bytes:
    channel = Channel(path=str(path))
    try:
        async with channel.request(
            _SERVICE + method, Cardinality.UNARY_UNARY, Raw, Raw, timeout=10
        ) as stream:
            await stream.send_message(Raw(message), end=True)
            reply = await stream.recv_message()
    finally:
        channel.close()
    assert reply is not None
    return reply.data


def _listen(folder: Path) -> socket.socket:
    plugin = socket.socket(socket.AF_UNIX)
    plugin.bind(str(folder / "csi.sock"))
    plugin.listen()
    return plugin


async def test_it_says_where_a_driver_answers_once_it_does_and_takes_that_back(
    program: Path, folder: Path
) -> None:
    registration = folder / "plugins_registry" / f"{DRIVER}-reg.sock"
    async with _started(program, folder) as running:
        # a file of a predecessor that was killed is no registration
        registration.touch()
        await asyncio.sleep(1)
        assert not registration.is_socket()
        with _listen(folder):
            await _appears(registration)
            told = await _call(registration, "GetInfo")
            assert told == b"".join(
                _text(field, value)
                for field, value in enumerate(
                    ("CSIPlugin", DRIVER, str(folder / "csi.sock"), "1.0.0"), start=1
                )
            )
            assert registration.stat().st_mode & 0o077 == 0
            await _call(registration, "NotifyRegistrationStatus", b"\x08\x01")
            assert running.returncode is None
            running.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(running.wait(), 10) == 0
    assert not registration.exists()


async def test_it_ends_with_kubelets_words_if_the_registration_failed(
    program: Path, folder: Path
) -> None:
    registration = folder / "plugins_registry" / f"{DRIVER}-reg.sock"
    async with _started(program, folder) as running:
        with _listen(folder):
            await _appears(registration)
            said = _text(2, "no such driver\n")
            # it ends at once, maybe before its answer is out; kubelet has nothing to do with it
            with contextlib.suppress(StreamTerminatedError):
                await _call(registration, "NotifyRegistrationStatus", said)
            assert await asyncio.wait_for(running.wait(), 10) == 1
        assert running.stderr is not None
        said_of_it = (await running.stderr.read()).decode()
    assert said_of_it == (
        f'csi-registrar: the kubelet did not register {DRIVER}: "no such driver\\n"\n'
    )
    assert not registration.exists()


@pytest.mark.parametrize("driver", ["", "Ebs", "a/b", "../a", "a" * 64, "a.", "a b"])
async def test_a_name_that_no_driver_has_is_refused(
    program: Path, folder: Path, driver: str
) -> None:
    async with _started(program, folder, driver=driver) as running:
        assert await asyncio.wait_for(running.wait(), 10) == 1
    assert not list((folder / "plugins_registry").iterdir())
