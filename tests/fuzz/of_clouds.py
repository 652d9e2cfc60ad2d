"""Targets of clouds' APIs: what lists, models and tokens say is a stranger's word."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from constellation.attestation.model import Variant
from constellation.base import rest
from constellation.base.errors import FormatError, Unavailable
from constellation.base.secret import Secret
from constellation.providers import answers, elements
from constellation.providers.aws import calls, preflight, query
from constellation.providers.aws import imds as aws_imds
from constellation.providers.aws import instances as aws_instances
from constellation.providers.azure import images, needs, scale_sets, sizes, wire_server
from constellation.providers.azure import imds as azure_imds
from constellation.providers.azure.node_groups import detached
from constellation.providers.baremetal import hosts
from constellation.providers.gcp import instances, metadata_server
from constellation.providers.openstack import access, identity, servers
from constellation.providers.protocols import Role
from tests.fakes import arm, aws_query, gce, openstack
from tests.fakes import wire_server as wire
from tests.fuzz.target import Target, repeated

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["TARGETS"]

_REPORTS_TAGS = 19
"""Nine elements, and the declaration."""

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
        return identity._lifetime_s(token), identity._endpoints(
            token, region="RegionOne", auth_url="https://keystone/v3"
        )
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


def _metadata(data: bytes) -> object:
    """Read what each metadata service says about the machine that asks, and its credentials."""
    answer, read = answers.parse(data, what="fuzz"), list[object]()
    for parse in (
        aws_imds.place_of,
        aws_imds.credentials_of,
        azure_imds.self_of,
        lambda found: metadata_server.self_of(found, project="project"),
    ):
        with contextlib.suppress(FormatError, Unavailable):
            read.append(parse(answer))
    return read


def _metadata_answers() -> Iterable[bytes]:
    document = {"instanceId": "i-1", "privateIp": "10.42.0.4", "region": "eu-west-1"}
    zone = {"availabilityZone": "eu-west-1a", "instanceType": "m6a.xlarge"}
    yield json.dumps(document | zone).encode()
    role = {"Code": "Success", "AccessKeyId": "AKIA1", "SecretAccessKey": "s", "Token": "t"}
    yield json.dumps(role | {"Expiration": "2026-11-29T10:00:00Z"}).encode()
    marks = {
        "constellation-uid": "constell-ab12cd",
        "constellation-role": "worker",
        "constellation-node-group": "worker_default",
    }
    compute = {
        "name": "vm_0",
        "subscriptionId": "s",
        "resourceGroupName": "nodes",
        "tagsList": [{"name": k, "value": v} for k, v in marks.items()],
        "resourceId": "/subscriptions/s/x",
        "zone": "1",
    }
    address = {"ipv4": {"ipAddress": [{"privateIpAddress": "10.42.1.10"}]}}
    yield json.dumps({"compute": compute, "network": {"interface": [address]}}).encode()
    google = {
        "name": "vm-0",
        "zone": "projects/1/zones/europe-west3-b",
        "machineType": "projects/1/machineTypes/n2d-standard-4",
        "attributes": marks,
        "networkInterfaces": [{"ip": "10.42.1.10"}],
    }
    yield json.dumps(google).encode()


def _preflights(data: bytes) -> object:
    """Read what clouds say about machine types, images and quotas."""
    answer, read = answers.parse(data, what="fuzz"), list[object]()
    listed, wanted = answer.items("value"), {("Standard_DC4as_v5", "1")}
    for parse in (
        lambda: sizes.missing_sizes(listed, wanted=wanted, region="germanywestcentral"),
        lambda: images.image_lines(answer, "image", variant=Variant.AZURE_SEV_SNP),
        lambda: needs.Allowed(actions=answer.texts("actions"), not_actions=()).allows("a/b/read"),
    ):
        with contextlib.suppress(FormatError):
            read.append(parse())
    return read


def _preflight_answers() -> Iterable[bytes]:
    size = {
        "resourceType": "virtualMachines",
        "name": "Standard_DC4as_v5",
        "locationInfo": [{"location": "germanywestcentral", "zones": ["1", "2"]}],
        "restrictions": [{"type": "Zone", "restrictionInfo": {"zones": ["2"]}}],
    }
    yield json.dumps({"value": [size]}).encode()
    feature = {"name": "SecurityType", "value": "ConfidentialVmSupported"}
    yield json.dumps({"properties": {"features": [feature], "hyperVGeneration": "V2"}}).encode()
    yield b'{"actions":["Microsoft.Network/*/read","*/read","a*b*c"]}'


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


def _goal_state(data: bytes) -> object:
    """Read what Azure's wire server says, and make a report of it."""
    goal = wire_server.parse_goal_state(data)
    report = wire_server.ready(goal)
    assert report.count(b"<") == _REPORTS_TAGS, "the answer has added to the report"
    return report


def _goal_states() -> Iterable[bytes]:
    said = "<Incarnation>1</Incarnation><Container><ContainerId>{}</ContainerId>{}</Container>"
    role = f"<RoleInstance><InstanceId>{wire.INSTANCE}</InstanceId></RoleInstance>"
    inner = said.format(wire.CONTAINER, f"<RoleInstanceList>{role}</RoleInstanceList>")
    yield f'<?xml version="1.0"?><GoalState>{inner}</GoalState>'.encode()


TARGETS = (
    Target(
        name="machine-metadata",
        run=_metadata,
        seeds=_metadata_answers,
        long=repeated(b'{"networkInterfaces":[', b"{},", b"{}]}"),
    ),
    Target(
        name="cloud-preflight",
        run=_preflights,
        seeds=_preflight_answers,
        long=repeated(b'{"value":[', b"{},", b"{}]}"),
    ),
    Target(
        name="aws-answer",
        run=_aws,
        seeds=_aws_answers,
        long=repeated(b"<R><reservationSet>", b"<item/>", b"</reservationSet></R>"),
    ),
    Target(
        name="azure-goal-state",
        run=_goal_state,
        seeds=_goal_states,
        long=repeated(b"<GoalState><Container>", b"<a/>", b"</Container></GoalState>"),
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
