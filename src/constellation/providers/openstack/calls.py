"""The calls of OpenStack that our programs make; they are an application credential's access rules.

`permission` is the service's type in Keystone's catalog: with method and path it is one access rule
(Keystone, "Application credentials", access rules). Nothing else can be done with the credential.
Source: OpenStack API references: Identity v3, Compute v2.1 (microversion 2.67, for the type of a
volume in a block device mapping), Networking v2.0, Load Balancer v2, Image v2, Block Storage v3.
"""

from __future__ import annotations

from typing import Final

from constellation.providers.calls import Call

__all__ = [
    "ADD_MEMBER",
    "ASKED",
    "AUTHENTICATE",
    "BALANCER",
    "COMPUTE",
    "COMPUTE_LIMITS",
    "CREATE_PORT",
    "CREATE_SERVER",
    "DELETE_PORT",
    "DELETE_SERVER",
    "GET_IMAGE",
    "IMAGE",
    "LIST_FLAVORS",
    "LIST_MEMBERS",
    "LIST_PORTS",
    "LIST_SERVERS",
    "LIST_ZONES",
    "NETWORK",
    "NODE_GROUP_CALLS",
    "REMOVE_MEMBER",
    "SET_METADATA",
    "VOLUME",
    "VOLUME_LIMITS",
    "WORKSTATION_CALLS",
    "access_rules",
]

COMPUTE: Final = "compute"
NETWORK: Final = "network"
BALANCER: Final = "load-balancer"
IMAGE: Final = "image"
VOLUME: Final = "volumev3"
"""As catalogs name it; the service types authority calls it block-storage."""
ASKED: Final = frozenset({COMPUTE, NETWORK, BALANCER, IMAGE, VOLUME})
"""All services that are asked with a token."""

# no rule: whoever has the credential's secret may ask for its token
AUTHENTICATE = Call(
    method="POST",
    path="/auth/tokens",
    permission="",
    why="a token, and where the other services are",
    repeatable=True,
)
LIST_SERVERS = Call(
    method="GET",
    path="/v2.1/servers/detail",
    permission=COMPUTE,
    why="JoinService compares what a node says; the operator sees its groups",
    repeatable=True,
)
CREATE_SERVER = Call(
    method="POST",
    path="/v2.1/servers",
    permission=COMPUTE,
    why="the operator adds one machine to a group",
    repeatable=False,
)
DELETE_SERVER = Call(
    method="DELETE",
    path="/v2.1/servers/{server}",
    permission=COMPUTE,
    why="the operator removes one machine; its volumes go with it",
    repeatable=True,
)
SET_METADATA = Call(
    method="POST",
    path="/v2.1/servers/{server}/metadata",
    permission=COMPUTE,
    why="machines read there which addresses control planes have",
    repeatable=True,
)
LIST_PORTS = Call(
    method="GET",
    path="/v2.0/ports",
    permission=NETWORK,
    why="the operator finds the port of a machine that it removes",
    repeatable=True,
)
CREATE_PORT = Call(
    method="POST",
    path="/v2.0/ports",
    permission=NETWORK,
    why="a machine's address, before the machine is there",
    repeatable=False,
)
DELETE_PORT = Call(
    method="DELETE",
    path="/v2.0/ports/{port}",
    permission=NETWORK,
    why="the address of a machine that was removed",
    repeatable=True,
)
LIST_MEMBERS = Call(
    method="GET",
    path="/v2/lbaas/pools/{pool}/members",
    permission=BALANCER,
    why="whether a control plane is in the load balancer",
    repeatable=True,
)
ADD_MEMBER = Call(
    method="POST",
    path="/v2/lbaas/pools/{pool}/members",
    permission=BALANCER,
    why="a new control plane gets connections once it answers",
    repeatable=False,
)
REMOVE_MEMBER = Call(
    method="DELETE",
    path="/v2/lbaas/pools/{pool}/members/{member}",
    permission=BALANCER,
    why="a control plane gets no connections before it is removed",
    repeatable=True,
)

NODE_GROUP_CALLS = (
    LIST_SERVERS,
    CREATE_SERVER,
    DELETE_SERVER,
    SET_METADATA,
    LIST_PORTS,
    CREATE_PORT,
    DELETE_PORT,
    LIST_MEMBERS,
    ADD_MEMBER,
    REMOVE_MEMBER,
)

# what `constellation` asks with the user's own credential, before anything is made
LIST_FLAVORS = Call(
    method="GET",
    path="/v2.1/flavors/detail",
    permission=COMPUTE,
    why="which machine type an instanceType names, and how much of a quota it takes",
    repeatable=True,
)
LIST_ZONES = Call(
    method="GET",
    path="/v2.1/os-availability-zone",
    permission=COMPUTE,
    why="whether the zones are there",
    repeatable=True,
)
COMPUTE_LIMITS = Call(
    method="GET",
    path="/v2.1/limits",
    permission=COMPUTE,
    why="whether the quotas have room for the machines",
    repeatable=True,
)
VOLUME_LIMITS = Call(
    method="GET",
    path="/v3/{project}/limits",
    permission=VOLUME,
    why="whether the quotas have room for the machines' volumes",
    repeatable=True,
)
GET_IMAGE = Call(
    method="GET",
    path="/v2/images/{image}",
    permission=IMAGE,
    why="whether the node image is there",
    repeatable=True,
)
WORKSTATION_CALLS = (
    *NODE_GROUP_CALLS,
    LIST_FLAVORS,
    LIST_ZONES,
    COMPUTE_LIMITS,
    VOLUME_LIMITS,
    GET_IMAGE,
)


def access_rules() -> tuple[dict[str, str], ...]:
    """Give the rules of the operator's application credential, as Keystone takes them."""
    return tuple(
        {
            "service": call.permission,
            "method": call.method,
            "path": call.path.format(**dict.fromkeys(call.parts, "*")),
        }
        for call in NODE_GROUP_CALLS
    )
