from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.base.errors import ConstellationError, FormatError, UserError
from constellation.providers.local.image_archive import open_archive
from constellation.providers.local.image_documents import (
    parse_document,
    parse_reference,
)

if TYPE_CHECKING:
    from pathlib import Path

OCI = "application/vnd.oci.image."


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tar(*members: tuple[str, bytes] | tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                file.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                file.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


LAYER = tar(("hello", b"world"))
CONFIG = json.dumps({"architecture": "amd64", "os": "linux"}).encode()


def descriptor(data: bytes, kind: str) -> dict[str, Any]:
    return {"mediaType": f"{OCI}{kind}", "digest": f"sha256:{sha(data)}", "size": len(data)}


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


MANIFEST = as_json(
    {
        "schemaVersion": 2,
        "config": descriptor(CONFIG, "config.v1+json"),
        "layers": [descriptor(LAYER, "layer.v1.tar")],
    }
)


def blob(data: bytes) -> tuple[str, bytes]:
    return f"blobs/sha256/{sha(data)}", data


def index(*entries: dict[str, Any]) -> tuple[str, bytes]:
    return "index.json", as_json({"schemaVersion": 2, "manifests": entries})


def named(name: str, key: str = "io.containerd.image.name") -> dict[str, Any]:
    return {**descriptor(MANIFEST, "manifest.v1+json"), "annotations": {key: name}}


def saved(*layers: str, tags: list[str] | None = None) -> tuple[str, bytes]:
    entry = {"Config": f"{sha(CONFIG)}.json", "RepoTags": tags or ["web:1"], "Layers": layers}
    return "manifest.json", as_json([entry])


OCI_MEMBERS = (blob(MANIFEST), blob(CONFIG), blob(LAYER))
OCI_ARCHIVE = tar(*OCI_MEMBERS, index(named("docker.io/library/web:1")))


def read(path: Path, data: bytes, *, name: str = "") -> tuple[list[str], dict[str, bytes]]:
    path.write_bytes(data)
    with open_archive(path, name=name) as image:
        blobs = {b.sha256: b.open().read() for b in image.blobs}
        assert [len(blobs[b.sha256]) for b in image.blobs] == [b.size_bytes for b in image.blobs]
        assert all(n.sha256 in blobs for n in image.names)
        return [str(n.reference) for n in image.names], blobs


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "image.tar"


def test_a_layout_is_read_with_the_name_that_it_gives(path: Path) -> None:
    names, blobs = read(path, OCI_ARCHIVE)
    assert names == ["docker.io/library/web:1"]
    assert blobs == {sha(x): x for x in (MANIFEST, CONFIG, LAYER)}


def test_a_reference_annotation_counts_only_if_it_is_a_whole_name(path: Path) -> None:
    key = "org.opencontainers.image.ref.name"
    assert read(path, tar(*OCI_MEMBERS, index(named("localhost/web:2", key))))[0] == [
        "localhost/web:2"
    ]
    with pytest.raises(UserError, match="called"):
        read(path, tar(*OCI_MEMBERS, index(named("latest", key))))
    assert read(path, tar(*OCI_MEMBERS, index(named("latest", key))), name="web")[0] == [
        "docker.io/library/web:latest"
    ]


def test_of_an_index_the_platforms_that_are_there_come(path: Path) -> None:
    other = descriptor(b"not here", "manifest.v1+json")
    inner = as_json({"manifests": [descriptor(MANIFEST, "manifest.v1+json"), other]})
    entry = {
        **descriptor(inner, "index.v1+json"),
        "annotations": {"io.containerd.image.name": "example.org/a/b:c"},
    }
    names, blobs = read(path, tar(*OCI_MEMBERS, blob(inner), index(entry)))
    assert names == ["example.org/a/b:c"]
    assert sha(inner) in blobs
    assert sha(MANIFEST) in blobs


@pytest.mark.parametrize("packed", [False, True])
def test_what_docker_saves_gets_a_manifest(path: Path, packed: bool) -> None:
    members = (
        (f"{sha(CONFIG)}.json", CONFIG),
        ("a/layer.tar", LAYER),
        link("b/layer.tar", "../a/layer.tar"),
        saved("a/layer.tar", "b/layer.tar", tags=["web:1", "web:newest"]),
    )
    data = tar(*members)
    names, blobs = read(path, gzip.compress(data) if packed else data)
    assert names == ["docker.io/library/web:1", "docker.io/library/web:newest"]
    assert len(blobs) == 3
    (manifest,) = [x for x in blobs.values() if b"schemaVersion" in x]
    config, *layers = parse_document(manifest).children
    assert config.sha256 == sha(CONFIG)
    assert [x.sha256 for x in layers] == [sha(LAYER)] * 2


def test_the_same_archive_gives_the_same_manifest(path: Path) -> None:
    data = tar((f"{sha(CONFIG)}.json", CONFIG), ("l", LAYER), saved("l"))
    assert read(path, data) == read(path, data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no image archive"),
        (b"junk" * 500, "no image archive"),
        (tar(("a", b"")), "manifest.json"),
        (tar(blob(MANIFEST), blob(CONFIG), index(named("web:1"))), "lacks the file"),
        (tar(*OCI_MEMBERS, index(named("web@sha256:1"))), "no image name"),
        (tar(*OCI_MEMBERS, index()), "0 images"),
        (tar(*OCI_MEMBERS, index({**named("a"), "digest": "md5:00"})), "SHA-256"),
        (tar(link("index.json", "/etc/passwd")), "lacks the file"),
        (tar(link("index.json", "../../../etc/passwd")), "lacks the file"),
        (tar(link("index.json", "index.json")), "lacks the file"),
        (tar(("manifest.json", b"[")), "not JSON"),
        (tar(("manifest.json", b"[]")), "no list"),
        (tar(("manifest.json", b'[{"Config":"/etc/passwd"}]')), "lacks the file"),
        (tar(("index.json", b" " * (4 * 1024**2 + 1))), "4194305 bytes"),
        (b"\x28\xb5\x2f\xfd" + b"\0" * 100, "zstd"),
        (gzip.compress(OCI_ARCHIVE)[:-30], "no image archive"),
    ],
)
def test_what_is_no_archive_is_refused_and_says_why(path: Path, data: bytes, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        read(path, data)


def test_a_header_of_any_size_is_not_read_into_memory(path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 17 * 1024**2
    path.write_bytes(info.tobuf() + b"\0" * info.size)
    with pytest.raises(FormatError, match="tar header"), open_archive(path, name=""):
        pass


def test_a_new_name_is_for_one_image(path: Path) -> None:
    two = tar(*OCI_MEMBERS, index(named("a"), named("b")))
    assert read(path, two)[0] == ["docker.io/library/a:latest", "docker.io/library/b:latest"]
    with pytest.raises(UserError, match="2 images"):
        read(path, two, name="c")


@given(st.binary(max_size=3000))
def test_junk_is_refused_and_nothing_else(tmp_path_factory: Any, data: bytes) -> None:
    path = tmp_path_factory.mktemp("junk") / "image.tar"
    path.write_bytes(data)
    with pytest.raises(ConstellationError), open_archive(path, name=""):
        pass


@given(st.integers(0, len(OCI_ARCHIVE) - 1), st.integers(1, 255))
def test_a_changed_byte_never_surprises(tmp_path_factory: Any, at: int, change: int) -> None:
    data = bytearray(OCI_ARCHIVE)
    data[at] ^= change
    path = tmp_path_factory.mktemp("flipped") / "image.tar"
    path.write_bytes(data)
    try:
        with open_archive(path, name="") as image:
            assert image.names
    except ConstellationError:
        pass


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("web", "docker.io/library/web:latest"),
        ("team/web:1", "docker.io/team/web:1"),
        ("localhost/web", "localhost/web:latest"),
        ("host:5000/a/b", "host:5000/a/b:latest"),
        ("ghcr.io/a/b_c.d--e:V1", "ghcr.io/a/b_c.d--e:V1"),
        ("docker.io/web:1", "docker.io/library/web:1"),
    ],
)
def test_short_names_mean_what_container_engines_mean(text: str, full: str) -> None:
    assert str(parse_reference(text)) == full


@pytest.mark.parametrize(
    "text", ["", "Web", "a//b", "a/../b", "web:", "web:a b", "web@sha256:0", "/web", "a" * 300]
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_reference(text)


@given(st.text(max_size=60))
def test_a_name_reads_back_as_itself(text: str) -> None:
    try:
        found = parse_reference(text)
    except FormatError:
        return
    assert parse_reference(str(found)) == found


@given(st.binary(max_size=200))
def test_junk_is_no_document(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_document(data)
