from __future__ import annotations

import hashlib
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import ClientSession, web
from yarl import URL

from constellation.base.digest import WrongDigest
from constellation.base.errors import Conflict, FormatError, UserError
from constellation.providers.local.daemon import registry
from constellation.providers.local.daemon.image_store import ImageStore
from constellation.providers.local.daemon.pull_through import PullThrough, origin
from constellation.providers.local.daemon.records import CloudRecord, with_node
from constellation.providers.local.image_documents import Reference
from constellation.providers.protocols import Group, Role

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

OCI = "application/vnd.oci.image."


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def descriptor(data: bytes, kind: str) -> dict[str, Any]:
    return {"mediaType": f"{OCI}{kind}", "digest": f"sha256:{sha(data)}", "size": len(data)}


def manifest(layer: bytes) -> bytes:
    value = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}manifest.v1+json",
        "config": descriptor(CONFIG, "config.v1+json"),
        "layers": [descriptor(layer, "layer.v1.tar")],
    }
    return json.dumps(value).encode()


CONFIG, LAYER = b"{}", b"layer" * 1000
MANIFEST = manifest(LAYER)
WEB = Reference(registry="docker.io", repository="library/web", tag="1")


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    store = ImageStore(tmp_path / "registry")
    store.open()
    return store


def put(store: ImageStore, *blobs: bytes) -> None:
    for data in blobs:
        with store.receive(sha(data), len(data)) as receiver:
            receiver.write(data)


def load(store: ImageStore, reference: Reference = WEB) -> None:
    put(store, CONFIG, LAYER, MANIFEST)
    store.name(reference, sha(MANIFEST), loaded=True)


class Upstream:
    """A registry that wants a token, as the public ones do."""

    def __init__(self) -> None:
        self.blobs = {sha(x): x for x in (CONFIG, LAYER, MANIFEST)}
        self.tags = {"1": sha(MANIFEST)}
        self.asked: list[str] = []
        self.down = False
        self.port = 0

    def where(self, _registry: str) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def handle(self, request: web.Request) -> web.Response:
        if request.path == "/token":
            return web.json_response({"token": "t0ken"})
        self.asked.append(request.path)
        if self.down:
            return web.Response(status=503)
        if request.headers.get("Authorization") != "Bearer t0ken":
            realm = f'Bearer realm="{self.where("")}/token",service="s",scope="pull"'
            return web.Response(status=401, headers={"WWW-Authenticate": realm})
        name = request.path.rpartition("/")[2].removeprefix("sha256:")
        body = self.blobs.get(self.tags.get(name, name))
        return web.Response(status=404) if body is None else web.Response(body=body)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    fake = Upstream()
    app = web.Application()
    app.router.add_get("/{path:.*}", fake.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    fake.port = runner.addresses[0][1]
    yield fake
    await runner.cleanup()


def _cloud(*, offline: bool = False, address: str = "127.0.0.1") -> CloudRecord:
    cloud = CloudRecord(id="mini", address="127.0.0.1", offline=offline)
    cloud, node = with_node(cloud, Group(name="workers", role=Role.WORKER, size=1))
    return cloud.put(replace(node, address=address))


@asynccontextmanager
async def served(
    store: ImageStore, upstream: Upstream, cloud: CloudRecord | None = None
) -> AsyncIterator[ClientSession]:
    pull = PullThrough(store, where=upstream.where)
    record = cloud or _cloud()
    runner = web.AppRunner(registry.application(lambda: record, store, pull))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with ClientSession(url) as session:
            yield session
    finally:
        await runner.cleanup()


async def _get(
    session: ClientSession, path: str, *, method: str = "GET", **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    async with session.request(method, URL(path, encoded=True), headers=headers) as answer:
        return answer.status, await answer.read(), dict(answer.headers)


async def test_a_loaded_image_is_served_to_its_last_byte(
    store: ImageStore, upstream: Upstream
) -> None:
    load(store)
    async with served(store, upstream, _cloud(offline=True)) as session:
        assert (await _get(session, "/v2/"))[0] == 200
        for method in ("HEAD", "GET"):
            path = "/v2/library/web/manifests/1?ns=docker.io"
            status, body, headers = await _get(session, path, method=method)
            assert status == 200
            assert headers["Content-Type"] == f"{OCI}manifest.v1+json"
            assert headers["Docker-Content-Digest"] == f"sha256:{sha(MANIFEST)}"
            assert headers["Content-Length"] == str(len(MANIFEST))
        assert body == MANIFEST
        path = f"/v2/library/web/blobs/sha256:{sha(LAYER)}?ns=docker.io"
        assert (await _get(session, path))[:2] == (200, LAYER)
        assert (await _get(session, path, Range="bytes=4990-"))[:2] == (206, LAYER[4990:])
        status, body, _ = await _get(session, "/v2/library/web/tags/list?ns=docker.io")
        assert json.loads(body) == {"name": "library/web", "tags": ["1"]}
    assert upstream.asked == []


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v2/library/web/manifests/2?ns=docker.io", 404, "MANIFEST_UNKNOWN"),
        ("/v2/library/web/manifests/1?ns=ghcr.io", 404, "MANIFEST_UNKNOWN"),
        ("/v2/library/web/manifests/1", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/library/web/manifests/sha256:{'0' * 64}?ns=docker.io", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/library/web/blobs/sha256:{'0' * 64}?ns=docker.io", 404, "BLOB_UNKNOWN"),
        ("/v2/library/web/blobs/sha256:../../names.json", 400, "DIGEST_INVALID"),
        ("/v2/library/web/blobs/names.json", 400, "DIGEST_INVALID"),
        ("/v2/LIBRARY/web/manifests/1", 400, "NAME_INVALID"),
        ("/v2/library/web/manifests/1?ns=..%2Fx", 400, "NAME_INVALID"),
        ("/v2/library/web/manifests/-1?ns=docker.io", 400, "MANIFEST_INVALID"),
    ],
)
async def test_what_is_not_there_is_said_in_the_specifications_words(
    store: ImageStore, upstream: Upstream, path: str, status: int, code: str
) -> None:
    load(store)
    async with served(store, upstream, _cloud(offline=True)) as session:
        found, body, _ = await _get(session, path)
    assert (found, json.loads(body)["errors"][0]["code"]) == (status, code)


async def test_only_machines_of_the_cloud_are_answered(
    store: ImageStore, upstream: Upstream
) -> None:
    load(store)
    async with served(store, upstream, _cloud(address="10.42.2.10")) as session:
        assert (await _get(session, "/v2/library/web/manifests/1?ns=docker.io"))[0] == 403


async def test_what_is_missing_is_fetched_once_and_kept(
    store: ImageStore, upstream: Upstream
) -> None:
    path = f"/v2/a/b/blobs/sha256:{sha(LAYER)}?ns=example.org"
    async with served(store, upstream) as session:
        assert (await _get(session, "/v2/a/b/manifests/1?ns=example.org"))[1] == MANIFEST
        assert (await _get(session, path))[1] == LAYER
        upstream.down = True
        assert (await _get(session, path))[1] == LAYER
        # the tag's registry is asked again, and what it said before holds while it is away
        assert (await _get(session, "/v2/a/b/manifests/1?ns=example.org"))[1] == MANIFEST
        assert (await _get(session, "/v2/a/b/manifests/2?ns=example.org"))[0] == 502
    assert sum("blobs" in x for x in upstream.asked) == 1


async def test_a_tag_that_moved_is_followed_but_a_loaded_image_stays(
    store: ImageStore, upstream: Upstream
) -> None:
    newer = manifest(CONFIG)
    async with served(store, upstream) as session:
        path = "/v2/library/web/manifests/1?ns=docker.io"
        assert (await _get(session, path))[1] == MANIFEST
        upstream.blobs[sha(newer)] = newer
        upstream.tags["1"] = sha(newer)
        assert (await _get(session, path))[1] == newer
        load(store)
        assert (await _get(session, path))[1] == MANIFEST


async def test_other_bytes_than_the_digest_asked_for_are_not_kept(
    store: ImageStore, upstream: Upstream
) -> None:
    upstream.blobs[sha(LAYER)] = b"other"
    upstream.blobs[sha(MANIFEST)] = manifest(CONFIG)
    async with served(store, upstream) as session:
        for kind, wanted in (("blobs", LAYER), ("manifests", MANIFEST)):
            path = f"/v2/a/b/{kind}/sha256:{sha(wanted)}?ns=example.org"
            assert (await _get(session, path))[0] == 502
            assert not store.has(sha(wanted))


async def test_what_the_registry_does_not_have_or_give_is_passed_on(
    store: ImageStore, upstream: Upstream
) -> None:
    upstream.blobs.clear()
    async with served(store, upstream) as session:
        assert (await _get(session, "/v2/a/b/manifests/1?ns=example.org"))[0] == 404


@pytest.mark.parametrize(
    "registry_name",
    ["localhost", "127.0.0.1", "127.0.0.1:5000", "10.0.0.1", "host", "host:80", "a.localhost",
     "[::1]", "0x7f.1", "metadata.google.internal", "printer.local", "a.b@c.d", "a.b/c",
     "2130706433"],
)  # fmt: skip
def test_a_node_cannot_send_the_workstation_to_its_own_services(registry_name: str) -> None:
    with pytest.raises(UserError):
        origin(registry_name)


def test_registries_by_name_are_asked_by_https() -> None:
    assert origin("docker.io") == "https://registry-1.docker.io"
    assert origin("ghcr.io") == "https://ghcr.io"
    assert origin("registry.example.org:5000") == "https://registry.example.org:5000"


def test_names_survive_a_restart_and_unfinished_blobs_do_not(
    store: ImageStore, tmp_path: Path
) -> None:
    load(store)
    (tmp_path / "registry/incoming/half").write_bytes(b"x")
    again = ImageStore(tmp_path / "registry")
    again.open()
    found = again.find(WEB)
    assert found is not None
    assert (found.sha256, found.loaded) == (sha(MANIFEST), True)
    assert not list((tmp_path / "registry/incoming").iterdir())


@pytest.mark.parametrize("data", [b"otherbytes" * 500, b"short", LAYER + b"x"])
def test_a_blob_that_is_not_what_was_announced_is_not_kept(store: ImageStore, data: bytes) -> None:
    with (
        pytest.raises((WrongDigest, FormatError)),
        store.receive(sha(LAYER), len(LAYER)) as receiver,
    ):
        receiver.write(data)
    assert not store.has(sha(LAYER))
    assert not list(store.path("x").parent.parent.joinpath("incoming").iterdir())


def test_a_blob_that_fits_nowhere_is_refused_before_a_byte_is_written(store: ImageStore) -> None:
    with pytest.raises(Conflict, match="no room"), store.receive(sha(b""), 17 * 1024**3):
        pass


def test_an_image_that_lacks_a_part_gets_no_name(store: ImageStore) -> None:
    put(store, CONFIG, MANIFEST)
    with pytest.raises(Conflict, match=sha(LAYER)):
        store.ensure_complete(sha(MANIFEST))
    index = json.dumps({"manifests": [descriptor(MANIFEST, "manifest.v1+json")]}).encode()
    put(store, index)
    with pytest.raises(Conflict, match=sha(LAYER)):
        store.ensure_complete(sha(index))
    put(store, LAYER)
    store.ensure_complete(sha(index))


def test_a_size_that_is_not_the_blobs_own_is_refused(store: ImageStore) -> None:
    wrong = json.loads(MANIFEST)
    wrong["layers"][0]["size"] += 1
    data = json.dumps(wrong).encode()
    put(store, CONFIG, LAYER, data)
    with pytest.raises(FormatError, match="want 5001"):
        store.ensure_complete(sha(data))
