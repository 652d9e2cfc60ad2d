from __future__ import annotations

import hashlib
import json
import os
import tarfile
from typing import TYPE_CHECKING, Any

from constellation.releases.oci import write_image

if TYPE_CHECKING:
    from pathlib import Path


def _write(folder: Path) -> Path:
    folder.mkdir()
    (folder / "program").write_bytes(b"#!" + folder.name.encode()[:0] + b"/bin/true")
    write_image(
        folder / "image.tar",
        reference="registry.k8s.io/etcd:3.6.8-0",
        programs={"usr/local/bin/etcd": folder / "program"},
        links={"bin": "usr/bin"},
        entrypoint=("etcd",),
        scratch=folder,
    )
    return folder / "image.tar"


def test_an_image_has_the_same_bytes_whenever_and_wherever_it_is_written(tmp_path: Path) -> None:
    first = _write(tmp_path / "a").read_bytes()
    before = os.umask(0o077)
    try:
        second = _write(tmp_path / "other").read_bytes()
    finally:
        os.umask(before)
    assert first == second


def test_every_blob_is_what_the_document_before_it_names(tmp_path: Path) -> None:
    with tarfile.open(_write(tmp_path / "a")) as tar:
        files = {m.name: tar.extractfile(m).read() for m in tar if m.isreg()}  # type: ignore[union-attr] # regular files have content
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}

    def blob(descriptor: dict[str, Any]) -> bytes:
        content = files["blobs/" + descriptor["digest"].replace(":", "/")]
        assert len(content) == descriptor["size"]
        assert "sha256:" + hashlib.sha256(content).hexdigest() == descriptor["digest"]
        return content

    (named,) = json.loads(files["index.json"])["manifests"]
    assert named["annotations"]["io.containerd.image.name"] == "registry.k8s.io/etcd:3.6.8-0"
    manifest = json.loads(blob(named))
    config = json.loads(blob(manifest["config"]))
    layer = blob(manifest["layers"][0])
    assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(layer).hexdigest()]
    assert config["config"]["Entrypoint"] == ["etcd"]


def test_a_layer_holds_folders_before_files_owned_by_root(tmp_path: Path) -> None:
    with tarfile.open(_write(tmp_path / "a")) as tar:
        largest = max((m for m in tar if "blobs" in m.name), key=lambda m: m.size)
        content = tar.extractfile(largest)
        assert content is not None
        with tarfile.open(fileobj=content) as layer:
            members = layer.getmembers()
    names = [m.name for m in members]
    assert names.index("usr/local/bin") < names.index("usr/local/bin/etcd")
    assert {(m.uid, m.gid, m.mtime, m.uname) for m in members} == {(0, 0, 0, "")}
    modes = {m.name: m.mode for m in members}
    assert (modes["usr/local/bin/etcd"], modes["tmp"], modes["etc/passwd"]) == (
        0o755,
        0o1777,
        0o644,
    )
    assert next(m for m in members if m.name == "bin").linkname == "usr/bin"
