"""Targets: what clouds, registries and files say to workstation, daemon and a booting node."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from constellation.attestation.policy_file import parse_policy
from constellation.base import decode
from constellation.base.errors import Conflict, FormatError, Rejected, Unavailable, UserError
from constellation.base.registry_session import parse_challenge
from constellation.base.secret import Secret
from constellation.cluster.kubeconfig import with_endpoint
from constellation.config.reader import parse_config
from constellation.config.schema import Config
from constellation.config.state import dump_state, parse_state
from constellation.config.writer import dump_example
from constellation.crypto.derive import MasterSecret
from constellation.disk.luks_header import HEADER_BYTES, judge_luks
from constellation.disk.superblock import SUPERBLOCK_END, judge
from constellation.kms.master_secret import dump_master_secret, load_master_secret
from constellation.providers.local import metadata
from constellation.providers.local.daemon import dns
from constellation.providers.local.daemon.dns_message import parse_query
from constellation.providers.local.image_archive import open_archive
from constellation.providers.local.image_documents import parse_document, parse_reference
from constellation.providers.protocols import Instance, Role
from constellation.releases import lock
from constellation.releases.registry import parse_descriptors
from tests.fuzz.target import Target, repeated
from tests.unit.config.test_state import STATE
from tests.unit.disk.test_superblock import ext4
from tests.unit.providers.local import test_image_archive as made
from tests.unit.releases.test_lock import LOCK
from tests.vectors.luks2_header import made_header

if TYPE_CHECKING:
    from collections.abc import Iterable

    from constellation.providers.local.metadata import Instances

__all__ = ["TARGETS"]

_SERVED = {f"api.{dns.ZONE}": dns.IPv4Address("10.42.0.1")}
_DIGEST = "sha256:" + "ab" * 32


def _answer(data: bytes) -> object:
    """Read an HTTP answer of the metadata service, then its body as the list of machines."""
    body = metadata._body(data, "http://fuzz")
    return decode.load(metadata.Instances, body, what="fuzz", max_bytes=metadata.MAX_BYTES)


def _instances() -> Instances:
    one = Instance(
        instance_id="w-0", group="g", role=Role.WORKER, address="10.42.2.10", state="running"
    )
    return metadata.Instances(instances=(one, one))


def _answers() -> Iterable[bytes]:
    body = decode.dump(_instances())
    yield b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    yield b"HTTP/1.0 409 Conflict\r\n\r\nno"
    yield b"HTTP/1.0 503 Busy\r\n\r\n"


def _dns(data: bytes) -> object:
    said = dns.answer(data, _SERVED)
    assert len(said) <= 512
    return parse_query(data)


def _queries() -> Iterable[bytes]:
    name = b"\x03api\x0dconstellation\x08internal\0"
    yield b"\0\x07\x01\0\0\x01\0\0\0\0\0\0" + name + b"\0\x01\0\x01"
    yield b"\0\x07\x01\0\0\x01\0\0\0\0\0\x01" + name + b"\0\x1c\0\x01" + b"\0\0\x29\x10" + bytes(7)


def _document(data: bytes) -> object:
    for field in ("manifests", "layers", "config"):
        with contextlib.suppress(FormatError):
            parse_descriptors(data, field)
    return parse_document(data)


def _documents() -> Iterable[bytes]:
    entry = {"digest": _DIGEST, "size": 5, "mediaType": "application/x"}
    yield json.dumps({"config": entry, "layers": [entry], "manifests": []}).encode()
    named = {**entry, "platform": {"os": "linux", "architecture": "amd64"}}
    yield json.dumps({"manifests": [named]}).encode()


def _registry_path(data: bytes) -> object:
    """Read what a client asks of the registry: name, tag or digest."""
    return parse_reference(data.decode("utf-8", "replace"))


def _archive(data: bytes) -> object:
    with TemporaryDirectory(prefix="fuzz-", dir="/dev/shm") as folder:
        path = Path(folder) / "image.tar"
        path.write_bytes(data)
        with open_archive(path, name="") as image:
            return [blob.open().read() for blob in image.blobs]


def _archives() -> Iterable[bytes]:
    yield made.OCI_ARCHIVE
    yield made.tar((f"{made.sha(made.CONFIG)}.json", made.CONFIG), made.saved())


def _superblock(data: bytes) -> object:
    first = data[:SUPERBLOCK_END].ljust(SUPERBLOCK_END, b"\0")
    return judge(first, blank=not any(first))


def _superblocks() -> Iterable[bytes]:
    yield ext4()[:SUPERBLOCK_END]


def _luks(data: bytes) -> object:
    header = data[:HEADER_BYTES].ljust(HEADER_BYTES, b"\0")
    return judge_luks(header, blank=not any(data))


def _luks_long(size: int) -> bytes:
    """Give both copies with as many key slots as fit: the longest JSON that is read."""
    start = made_header()
    text = start[4096:16384].rstrip(b"\0")
    slots = b"".join(b'"%d":{},' % number for number in range(size // 10))
    area = text.replace(b'"keyslots":{', b'"keyslots":{' + slots, 1)[:12288].ljust(12288, b"\0")
    return start[:4096] + area + start[16384:20480] + area


_KUBECONFIG = (
    b"apiVersion: v1\nkind: Config\nclusters:\n- name: c\n"
    b"  cluster: {server: 'https://10.42.0.1:6443'}\n"
)

TARGETS = (
    Target(
        name="metadata-answer",
        run=_answer,
        seeds=_answers,
        allowed=(FormatError, Unavailable, Conflict),
        long=repeated(b"HTTP/1.0 200 OK\r\n", b"a: b\r\n", b"\r\n[]"),
    ),
    Target(name="dns-query", run=_dns, seeds=_queries, max_bytes=1024),
    Target(name="oci-document", run=_document, seeds=_documents),
    Target(
        name="oci-reference",
        run=_registry_path,
        seeds=lambda: [b"web", b"example.org/team/web:1", b"localhost:5000/a"],
        long=repeated(b"a", b"-"),
    ),
    Target(
        name="registry-challenge",
        run=lambda data: parse_challenge(data.decode("latin-1")),
        seeds=lambda: [b'Bearer realm="https://a/t",service="s",scope="repository:x:pull"'],
        long=repeated(b"Bearer ", b'a="'),
    ),
    Target(
        name="image-archive",
        run=_archive,
        seeds=_archives,
        allowed=(FormatError, UserError, Unavailable),
        max_bytes=32768,
    ),
    Target(
        name="superblock",
        run=_superblock,
        seeds=_superblocks,
        allowed=(FormatError, Rejected),
        max_bytes=SUPERBLOCK_END,
    ),
    Target(
        name="luks-header",
        run=_luks,
        seeds=lambda: [made_header()],
        allowed=(FormatError, Rejected),
        long=_luks_long,
        max_bytes=32768,
    ),
    Target(
        name="config-file",
        run=lambda data: parse_config(data, name="fuzz"),
        seeds=lambda: [dump_example(Config()).encode()],
        allowed=(UserError,),
        max_bytes=4096,
    ),
    Target(
        name="state-file",
        run=lambda data: parse_state(data, name="fuzz"),
        seeds=lambda: [dump_state(STATE)],
        allowed=(UserError,),
        max_bytes=4096,
    ),
    Target(
        name="kubeconfig",
        run=lambda data: with_endpoint(data, endpoint="127.0.0.1:6443"),
        seeds=lambda: [_KUBECONFIG],
        max_bytes=4096,
    ),
    Target(
        name="master-secret",
        run=lambda data: load_master_secret(Secret(data)),
        seeds=lambda: [
            dump_master_secret(MasterSecret(key=Secret(bytes(32)), salt=Secret(bytes(32)))).reveal()
        ],
    ),
    Target(
        name="appraisal-policy",
        run=parse_policy,
        seeds=lambda: [
            b'{"pcr4":{"one_of":["00","01"]},"a":{"unchecked":"why"},"b":{"at_least":1}}'
        ],
    ),
    Target(name="artifact-lock", run=lock.parse, seeds=lambda: [lock.dump(LOCK)]),
)
