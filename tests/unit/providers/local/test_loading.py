from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pytest
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from constellation.base.errors import Conflict, FormatError, Unavailable, Untrusted, UserError
from constellation.base.progress import Progress, silent
from constellation.providers.local.daemon.image_store import ImageStore
from constellation.providers.local.daemon.service import LocalCloud
from constellation.providers.local.image_documents import parse_reference
from constellation.providers.local.infrastructure import LocalInfrastructure
from constellation.rpc.stubs import daemon_pb2 as pb
from tests.unit.providers.local.test_image_archive import (
    CONFIG,
    LAYER,
    MANIFEST,
    OCI_ARCHIVE,
    blob,
    index,
    named,
    sha,
    tar,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from constellation.providers.local.daemon.cloud import Cloud


@dataclass
class Here:
    """A cloud that is only a store, with its socket in a test's folder."""

    id: str
    socket: Path
    store: ImageStore


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Here]:
    place = Here(id="x", socket=tmp_path / "s", store=ImageStore(tmp_path / "registry"))
    place.store.open()

    async def destroy(_keep: bool, _report: object) -> None:
        raise AssertionError

    server = Server([LocalCloud(cast("Cloud", place), destroy)])
    await server.start(path=str(place.socket))
    yield place
    server.close()
    await server.wait_closed()


def _infrastructure(here: Here) -> LocalInfrastructure:
    infrastructure = LocalInfrastructure("x")
    cast("Any", infrastructure)._layout = here
    return infrastructure


def _write(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "image.tar"
    path.write_bytes(data)
    return path


async def test_an_archive_becomes_an_image_with_the_name_that_pods_use(
    here: Here, tmp_path: Path
) -> None:
    told: list[Progress] = []
    names = await _infrastructure(here).load_image(
        _write(tmp_path, OCI_ARCHIVE), report=told.append
    )
    assert names == ("docker.io/library/web:1",)
    found = here.store.find(parse_reference("web:1"))
    assert found is not None
    assert found.loaded
    assert here.store.document(found.sha256)[0] == MANIFEST
    assert here.store.path(sha(LAYER)).read_bytes() == LAYER
    assert told[-1].finished
    assert told[-1].done == told[-1].total == sum(map(len, (MANIFEST, CONFIG, LAYER)))


async def test_a_layer_larger_than_a_message_arrives(here: Here, tmp_path: Path) -> None:
    # 3 MiB in chunks of half a MiB, as docker save writes it
    layer = bytes(range(256)) * 4096 * 3
    manifest = b'[{"Config":"c","RepoTags":["big:1"],"Layers":["l"]}]'
    data = tar(("manifest.json", manifest), ("c", CONFIG), ("l", layer))
    await _infrastructure(here).load_image(_write(tmp_path, data), report=silent)
    assert here.store.path(sha(layer)).read_bytes() == layer


async def test_a_blob_that_is_not_its_digest_is_named_and_not_kept(
    here: Here, tmp_path: Path
) -> None:
    other = bytes(len(LAYER))
    data = tar(
        blob(MANIFEST), blob(CONFIG), (blob(LAYER)[0], other), index(named("docker.io/a/b:c"))
    )
    async with asyncio.timeout(10):
        with pytest.raises(Untrusted, match=sha(LAYER)):
            await _infrastructure(here).load_image(_write(tmp_path, data), report=silent)
    assert not here.store.has(sha(LAYER))
    assert here.store.find(parse_reference("a/b:c")) is None


async def test_what_cannot_be_read_is_said_before_anything_is_sent(
    here: Here, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="No such file"):
        await _infrastructure(here).load_image(tmp_path / "absent", report=silent)
    with pytest.raises(FormatError):
        await _infrastructure(here).load_image(_write(tmp_path, b"x" * 600), report=silent)


async def test_without_a_daemon_it_may_be_tried_again(here: Here, tmp_path: Path) -> None:
    here.socket = tmp_path / "nobody"
    with pytest.raises(Unavailable, match="does not answer"):
        await _infrastructure(here).load_image(_write(tmp_path, OCI_ARCHIVE), report=silent)


SHA = sha(b"abc")
GOOD = pb.Blob(sha256=SHA, size=3)
NAME = pb.ImageName(registry="docker.io", repository="a/b", tag="1", sha256=SHA)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([pb.LoadImageRequest(chunk=b"abc")], "no blob"),
        ([pb.LoadImageRequest()], "no blob"),
        ([pb.LoadImageRequest(blob=pb.Blob(sha256="../x", size=1))], "64 hexadecimal"),
        ([pb.LoadImageRequest(blob=GOOD)], "3 bytes are missing"),
        ([pb.LoadImageRequest(blob=GOOD), pb.LoadImageRequest(blob=GOOD)], "are missing"),
        ([pb.LoadImageRequest(blob=GOOD), pb.LoadImageRequest(chunk=b"abcd")], "more than 3"),
        ([pb.LoadImageRequest(blob=GOOD), pb.LoadImageRequest(chunk=b"")], "a chunk of 0"),
        ([pb.LoadImageRequest(blob=GOOD), pb.LoadImageRequest(chunk=b"abd")], "expected"),
        ([pb.LoadImageRequest(blob=pb.Blob(sha256=SHA, size=1 << 60))], "no room"),
        ([pb.LoadImageRequest(name=NAME)], "lacks"),
        (
            [pb.LoadImageRequest(name=pb.ImageName(registry="a/b", repository="x", tag="1"))],
            "no name",
        ),
    ],
)
async def test_a_client_of_the_socket_is_not_believed(
    here: Here, parts: list[pb.LoadImageRequest], words: str
) -> None:
    async def send() -> None:
        async with _infrastructure(here)._stub() as stub, stub.LoadImage.open() as stream:
            for part in parts:
                await stream.send_message(part)
            await stream.end()
            await stream.recv_message()

    with pytest.raises((Conflict, FormatError, Untrusted, GRPCError), match=words):
        await send()
    assert not list(here.store.path("x").parent.iterdir())
    assert not list((here.store.path("x").parent.parent / "incoming").iterdir())
