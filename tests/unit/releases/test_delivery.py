"""Several sources, each of which may lie: the right bytes come from the one that has them."""

from __future__ import annotations

import dataclasses
import resource
from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import ConstellationError
from constellation.releases.delivery import ArtifactMissing, FalseArtifact, Patience, deliver
from constellation.trust.artifact_sources import parse_source
from tests.fakes import file_servers
from tests.fakes.file_servers import BRISK, FileServer, artifact_of, door_to, file_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from aiohttp import web

    from constellation.trust.artifact_list import Artifact

KUBELET, CONTENT = b"kubelet's bytes" * 1000, b"a squashfs" * 9000
LIST = (artifact_of(KUBELET, "kubelet"), artifact_of(CONTENT, "containerd-content"))
SOON = Patience(first_pause_s=0.01, longest_pause_s=0.04, in_all_s=0.3)


@pytest.fixture
async def servers() -> AsyncIterator[tuple[FileServer, FileServer]]:
    async with file_server() as first, file_server() as second:
        for server in (first, second):
            server.add(KUBELET, CONTENT)
        yield first, second


async def have(
    folder: Path, *servers: FileServer, wanted: tuple[Artifact, ...] = LIST
) -> dict[str, bytes]:
    await deliver(
        wanted,
        folder=folder,
        sources=tuple(parse_source(s.url) for s in servers),
        door=door_to(),
        pace=BRISK,
        patience=SOON,
    )
    return {p.name: p.read_bytes() for p in folder.iterdir()}


async def refused(
    folder: Path, *servers: FileServer, wanted: tuple[Artifact, ...] = LIST
) -> ConstellationError:
    with pytest.raises(ConstellationError) as caught:
        await have(folder, *servers, wanted=wanted)
    right = {a.sha256 for a in LIST}
    assert {p.name for p in folder.iterdir()} <= right, "a part was left behind"
    return caught.value


async def test_every_file_comes_and_lies_under_its_digest(
    servers: tuple[FileServer, FileServer], tmp_path: Path
) -> None:
    first, second = servers
    kept = await have(tmp_path / "sha256", first, second)
    assert kept == {LIST[0].sha256: KUBELET, LIST[1].sha256: CONTENT}
    assert len(first.asked) == 2
    assert not second.asked


async def test_what_is_there_is_not_fetched_again_and_what_is_damaged_is(
    servers: tuple[FileServer, FileServer], tmp_path: Path
) -> None:
    first, _ = servers
    await have(tmp_path, first)
    await have(tmp_path, first)
    assert len(first.asked) == 2
    damaged = tmp_path / LIST[0].sha256
    data = bytearray(KUBELET)
    data[7] ^= 1
    damaged.chmod(0o755)
    damaged.write_bytes(data)
    assert (await have(tmp_path, first))[LIST[0].sha256] == KUBELET
    assert len(first.asked) == 3


async def test_a_source_that_lies_is_left_for_the_next(
    servers: tuple[FileServer, FileServer], tmp_path: Path
) -> None:
    first, second = servers
    first.lie = file_servers.gives(lambda data: bytes(len(data)))
    await have(tmp_path, first, second)
    assert len(first.asked) == len(second.asked) == 2


async def test_if_all_lie_all_are_named_and_nothing_is_believed(
    servers: tuple[FileServer, FileServer], tmp_path: Path
) -> None:
    for server in servers:
        server.lie = file_servers.gives(lambda data: bytes(len(data)))
    error = await refused(tmp_path, *servers, wanted=LIST[:1])
    assert isinstance(error, FalseArtifact)
    assert error.artifact == LIST[0]
    assert set(error.reasons) == {s.url for s in servers}
    assert all(LIST[0].sha256 in reason for reason in error.reasons.values())
    assert [len(s.asked) for s in servers] == [1, 1], "nobody is asked again for what is false"


async def test_a_busy_source_is_asked_again_after_a_pause(
    servers: tuple[FileServer, FileServer], tmp_path: Path
) -> None:
    first, _ = servers
    answers = iter([429, 503])

    async def busy(request: web.Request, data: bytes) -> web.StreamResponse:
        if (status := next(answers, None)) is not None:
            return await file_servers.says(status, Retry_After="9")(request, data)
        return await file_servers.gives(lambda d: d)(request, data)

    first.lie = busy
    await have(tmp_path, first, wanted=LIST[:1])
    assert len(first.asked) == 3


async def test_patience_ends_and_says_what_was_wrong_with_each(
    servers: tuple[FileServer, FileServer], tmp_path: Path
) -> None:
    first, second = servers
    first.lie = file_servers.says(503)
    second.lie = file_servers.says(404)
    error = await refused(tmp_path, first, second, wanted=LIST[:1])
    assert isinstance(error, ArtifactMissing)
    assert "artifact kubelet" in str(error)
    assert "status 503" in error.reasons[first.url]
    assert "status 404" in error.reasons[second.url]
    assert len(first.asked) > 2
    assert len(second.asked) == 1, "who says no is not asked again"


@pytest.mark.parametrize(
    "lie",
    [
        file_servers.gives(lambda data: data + b"x"),
        file_servers.gives(lambda data: data[:-1]),
        file_servers.in_chunks,
        file_servers.cut_short,
        file_servers.drips,
        file_servers.bomb,
        file_servers.says(302, Location="http://169.254.169.254/latest/meta-data/"),
        file_servers.says(404),
    ],
)
async def test_whatever_one_does_the_next_is_asked(
    servers: tuple[FileServer, FileServer], tmp_path: Path, lie: file_servers.Liar
) -> None:
    first, second = servers
    first.lie = lie
    assert (await have(tmp_path, first, second))[LIST[1].sha256] == CONTENT


async def test_without_a_source_the_conf_is_named(tmp_path: Path) -> None:
    error = await refused(tmp_path)
    assert isinstance(error, ArtifactMissing)
    assert "no source is named" in str(error)
    assert "artifacts.sources" in error.hint


async def test_a_full_disk_is_said_and_leaves_nothing(
    servers: tuple[FileServer, FileServer], tmp_path: Path
) -> None:
    first, _ = servers
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, usual[1]))
    try:
        error = await refused(tmp_path, first, wanted=LIST[:1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert f"{tmp_path}: File too large" in str(error)


async def test_a_file_larger_than_its_list_says_takes_no_room(
    servers: tuple[FileServer, FileServer], tmp_path: Path
) -> None:
    first, _ = servers
    smaller = dataclasses.replace(LIST[0], size_bytes=10)
    error = await refused(tmp_path, first, wanted=(smaller,))
    assert "expected 10" in str(error)
