"""Targets of clouds' APIs: what lists, models and tokens say is a stranger's word."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from constellation.base import rest
from constellation.base.errors import FormatError, Unavailable
from constellation.base.secret import Secret
from constellation.providers import answers
from constellation.providers.aws import calls, elements, preflight, query
from constellation.providers.aws import instances as aws_instances
from constellation.providers.azure import scale_sets
from constellation.providers.azure.node_groups import detached
from constellation.providers.baremetal import hosts
from constellation.providers.gcp import instances
from constellation.providers.openstack import access, identity, servers
from constellation.providers.protocols import Role
from tests.fakes import arm, aws_query, gce, openstack
from tests.fuzz.target import Target, repeated

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["TARGETS"]

_SET = scale_sets.ScaleSet(
    name="s", group="g", role=Role.WORKER, capacity=1, sku="Standard_DC4as_v5", tier="Standard"
)


def _google(data: bytes) -> object:
    """Read a page of an aggregated list, machine by machine."""
    scopes = answers.parse(data, what="fuzz").fields("items").values()
    return [instances._found(i, "constell-ab12cd") for _, s in scopes for i in s.items("instances")]


def _google_lists() -> Iterable[bytes]:
    cloud = gce.FakeGce()
    listed: Any = cloud.compute
    vms = [listed._instance(vm) for vm in cloud.vms.values()]
    yield json.dumps(
        {"items": {"zones/z": {"instances": vms}, "zones/y": {"warning": {}}}}
    ).encode()


def _azure(data: bytes) -> object:
    """Read a machine's model as one, as an interface, and without the load balancer's pools."""
    model = answers.parse(data, what="fuzz")
    interface = scale_sets._interface(model)
    machine = scale_sets._machine(model, _SET, {})
    return interface, machine, detached(model)


def _azure_models() -> Iterable[bytes]:
    vm = arm.SetVm(number="0", address="10.42.1.10", pools=[{"id": "/pool"}])
    model = arm._model(vm, "Succeeded")
    yield json.dumps(model).encode()
    address = {"properties": {"privateIPAddress": "10.42.1.10"}}
    model["properties"] |= {"virtualMachine": {"id": "/x/0"}, "ipConfigurations": [address]}
    yield json.dumps(model).encode()


def _openstack(data: bytes) -> object:
    """Read a token with its catalog, and a list of servers."""
    answer = answers.parse(data, what="fuzz")
    if answer.has("token"):
        token = answer.fields("token")
        return identity._lifetime_s(token), identity._endpoints(token, region="RegionOne")
    return [servers._found(s) for s in answer.items("servers")]


def _openstack_answers() -> Iterable[bytes]:
    cloud = openstack.FakeOpenStack()
    yield json.dumps({"servers": [openstack._server(s) for s in cloud.servers.values()]}).encode()
    endpoint = {"interface": "public", "region": "RegionOne", "url": "https://nova/v2.1/abc"}
    token = {
        "issued_at": "2026-11-29T10:00:00.000000Z",
        "expires_at": "2026-11-29T11:00:00.000000Z",
        "catalog": [{"type": "compute", "endpoints": [endpoint]}],
    }
    yield json.dumps({"token": token}).encode()


def _aws(data: bytes) -> object:
    """Read an answer of EC2's: a page of machines, everybody's machines, or a refusal."""
    answer = rest.Answer(status=400, headers={}, body=data)
    query.failure(answer, what="fuzz", call=calls.DESCRIBE_INSTANCES, hint="")
    page = elements.parse_xml(data, what="fuzz")
    machines = [m for r in page.items("reservationSet") for m in r.items("instancesSet")]
    return aws_instances.parse_page(page, aws_query.UID), [preflight._cpus(m) for m in machines]


def _aws_answers() -> Iterable[bytes]:
    aws: Any = aws_query.FakeAws()
    machine = aws_query._machine(aws.add(1, "worker_default", "worker"))
    aws.others = [("m6a.xlarge", 4, ""), ("c6a.xlarge", 4, "spot")]
    page = f"<reservationSet><item><instancesSet>{machine}</instancesSet></item></reservationSet>"
    for content in (page, aws._everybodys()):
        yield f'<R xmlns="http://ec2.amazonaws.com/doc/">{content}</R>'.encode()
    yield b"<R><Errors><Error><Code>RequestLimitExceeded</Code></Error></Errors></R>"
    yield b'{"__type":"com.amazonaws#AccessDeniedException","Message":"no"}'


def _hosts(data: bytes) -> object:
    """Read what a host of one's own finds on its medium."""
    return hosts.parse_hosts(data)


def _hosts_files() -> Iterable[bytes]:
    host = hosts.Host(name="host-10-0-0-1", group="g", role=Role.WORKER, address="10.0.0.1")
    yield hosts.dump_hosts(hosts.Hosts(uid="constell-0a1b2c", me=host.name, hosts=(host,)))


def _access(data: bytes) -> object:
    """Read what the owner or a KeyService gives a control plane for the cloud's API."""
    return access.load_access(Secret(data))


def _accesses() -> Iterable[bytes]:
    yield access.dump_access(openstack.FakeOpenStack().access()).reveal()


TARGETS = (
    Target(
        name="aws-answer",
        run=_aws,
        seeds=_aws_answers,
        long=repeated(b"<R><reservationSet>", b"<item/>", b"</reservationSet></R>"),
    ),
    Target(
        name="baremetal-hosts",
        run=_hosts,
        seeds=_hosts_files,
        long=repeated(b'{"hosts":[', b"{},", b"{}]}"),
    ),
    Target(
        name="openstack-access",
        run=_access,
        seeds=_accesses,
        long=repeated(b'{"groups":{', b'"a":{},', b'"a":{}}}'),
    ),
    Target(
        name="google-instances",
        run=_google,
        seeds=_google_lists,
        long=repeated(b'{"items":{"z":{"instances":[', b"{},", b"{}]}}}"),
    ),
    Target(
        name="azure-machine",
        run=_azure,
        seeds=_azure_models,
        long=repeated(b'{"properties":{"ipConfigurations":[', b"{},", b"{}]}}"),
    ),
    Target(
        name="openstack-answer",
        run=_openstack,
        seeds=_openstack_answers,
        allowed=(FormatError, Unavailable),
        long=repeated(b'{"servers":[', b"{},", b"{}]}"),
    ),
)
