"""Tests of constellation.services.keyservice.namespaces."""

import pytest

from constellation.base.errors import FormatError, Rejected
from constellation.kube.membership import NodeRole
from constellation.kube.service_identity import ServiceIdentity
from constellation.services.keyservice.namespaces import allow

UUID = "0123456789abcdef0123456789abcdef"
CONTROL_PLANE = ServiceIdentity(cluster_id=bytes(32), role=NodeRole.CONTROL_PLANE, name="cp-0")
WORKER = ServiceIdentity(cluster_id=bytes(32), role=NodeRole.WORKER, name="w-0")


def test_a_control_plane_may_ask_for_disk_keys() -> None:
    dashed = "state-disk/01234567-89ab-cdef-0123-456789abcdef"
    assert allow(CONTROL_PLANE, key_id=dashed, size_bytes=64) == f"state-disk/{UUID}"


@pytest.mark.parametrize("key_id", ["measurementSecret", "ssh-ca", "etcd/1", "volume/x"])
def test_nobody_gets_a_key_outside_the_namespace(key_id: str) -> None:
    for caller in (CONTROL_PLANE, WORKER):
        with pytest.raises(Rejected, match=key_id):
            allow(caller, key_id=key_id, size_bytes=32)


def test_a_worker_gets_no_key() -> None:
    with pytest.raises(Rejected, match="a worker may ask for no keys"):
        allow(WORKER, key_id=f"state-disk/{UUID}", size_bytes=64)


@pytest.mark.parametrize(
    ("key_id", "size"), [("state-disk/../etcd/1", 32), (f"state-disk/{UUID}", 0), ("", 32)]
)
def test_what_is_no_request_is_a_format_error(key_id: str, size: int) -> None:
    with pytest.raises(FormatError):
        allow(CONTROL_PLANE, key_id=key_id, size_bytes=size)
