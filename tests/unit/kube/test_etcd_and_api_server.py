"""What etcd and an API server answer is bounded, parsed strictly, and checked where it can be."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import FormatError, Unavailable
from constellation.kube import api_server
from constellation.kube.etcd import write_snapshot
from tests.fakes.control_plane import OLD, Host

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.fakes.control_plane import Policies

DATA = bytes(range(256)) * 40
WHOLE = DATA + hashlib.sha256(DATA).digest()


def lines(data: bytes, *, size: int = 1000) -> bytes:
    parts = [data[i : i + size] for i in range(0, len(data), size)]
    return b"".join(
        json.dumps({"result": {"blob": base64.b64encode(p).decode()}}).encode() + b"\n"
        for p in parts
    )


async def chunks(data: bytes, *, size: int = 77) -> AsyncIterator[bytes]:
    for i in range(0, len(data), size):
        yield data[i : i + size]


@pytest.mark.parametrize("size", [1, 31, 32, 33, 1000, 20000])
async def test_a_snapshot_is_written_whole_with_its_digest(size: int) -> None:
    target = io.BytesIO()
    await write_snapshot(chunks(lines(WHOLE, size=size), size=501), target)
    assert target.getvalue() == WHOLE


@pytest.mark.parametrize(
    "data",
    [
        lines(WHOLE[:-1000]),
        lines(DATA[:-1] + b"x" + hashlib.sha256(DATA).digest()),
        lines(hashlib.sha256(b"").digest()),
        b"",
        b"no json\n",
        b'{"result": {"blob": "%%%"}}\n',
        b'{"other": 1}\n',
    ],
)
async def test_a_snapshot_that_is_cut_or_changed_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="etcd"):
        await write_snapshot(chunks(data), io.BytesIO())


async def test_etcds_own_error_is_said() -> None:
    with pytest.raises(Unavailable, match="no leader"):
        await write_snapshot(chunks(b'{"error": {"message": "no leader"}}\n'), io.BytesIO())


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host(home=tmp_path)
    _: Policies = host.install(monkeypatch)
    return host


async def test_an_api_server_says_its_version_and_that_it_is_ready(host: Host) -> None:
    async with host.api_server():
        ca = host.paths.pki / "ca.crt"
        found = await api_server.version("127.0.0.1", ca_file=ca, timeout_s=5, port=host.port)
        await api_server.ready("127.0.0.1", ca_file=ca, timeout_s=5, port=host.port)
    assert found == OLD


async def test_another_clusters_api_server_is_not_believed(host: Host, tmp_path: Path) -> None:
    other = tmp_path / "other.crt"
    other.write_bytes(Host(home=tmp_path / "other").authority.certificate_pem)
    async with host.api_server():
        with pytest.raises(Unavailable, match="certificate"):
            await api_server.version("127.0.0.1", ca_file=other, timeout_s=5, port=host.port)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"gitVersion": "v1.36"}', b'{"gitVersion": 1}'])
def test_a_version_that_is_none_is_malformed(body: bytes) -> None:
    with pytest.raises(FormatError):
        api_server.parse_version(body, where="here")
