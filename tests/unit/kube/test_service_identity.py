import pytest

from constellation.base.errors import Untrusted
from constellation.kube.membership import NodeRole
from constellation.kube.service_identity import ServiceIdentity, dump_identity, parse_identity
from tests.fakes.members import CLUSTER_ID

NODE = ServiceIdentity(cluster_id=CLUSTER_ID, role=NodeRole.WORKER, name="worker-default-0")
URI = dump_identity(NODE)


def test_an_identity_survives_its_certificate() -> None:
    assert parse_identity((URI,), cluster_id=CLUSTER_ID) == NODE


@pytest.mark.parametrize(
    "uris",
    [
        (),
        (URI, URI),
        (URI + "/x",),
        (URI.replace("worker/", "owner/"),),
        (URI.upper(),),
        (URI + "\n",),
    ],
)
def test_anything_else_is_untrusted(uris: tuple[str, ...]) -> None:
    with pytest.raises(Untrusted):
        parse_identity(uris, cluster_id=CLUSTER_ID)


def test_another_cluster_is_untrusted() -> None:
    with pytest.raises(Untrusted, match="another cluster"):
        parse_identity((URI,), cluster_id=bytes(32))
