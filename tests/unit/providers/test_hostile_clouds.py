"""What somebody gets who owns a cloud's API and its metadata service: refusals in our own words.

Each answer is one that a genuine service would not give. Nothing may end in another error than ours
(a bug would end the program), lead a request elsewhere, or go on without end.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest

from constellation.base import rest
from constellation.base.errors import FormatError, Unavailable
from constellation.config.cloud_settings import azure_settings
from constellation.providers import answers, listing
from constellation.providers.aws.imds import Imds
from constellation.providers.aws.metadata import AwsMetadata
from constellation.providers.azure import scale_sets
from constellation.providers.azure.cloud import AzureCloud
from constellation.providers.azure.node_groups import AzureNodeGroups
from constellation.providers.elements import parse_xml
from constellation.providers.gcp import instances
from constellation.providers.gcp.credentials import WorkstationToken
from constellation.providers.gcp.node_groups import GcpNodeGroups
from constellation.providers.listing import Listing, once_each
from constellation.providers.openstack import servers
from constellation.providers.openstack.identity import Cloud as Region
from constellation.providers.openstack.node_groups import OpenStackNodeGroups
from constellation.providers.protocols import Instance, Role
from tests.fakes.arm import RESOURCE_GROUP, SUBSCRIPTION, FakeAzure
from tests.fakes.aws_query import FakeAws
from tests.fakes.cloud_confs import conf
from tests.fakes.gce import FakeGce
from tests.fakes.openstack import FakeOpenStack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def stack() -> AsyncIterator[FakeOpenStack]:
    async with FakeOpenStack().serving() as made:
        yield made


@pytest.fixture
async def azure() -> AsyncIterator[FakeAzure]:
    async with FakeAzure().serving() as made:
        yield made


@pytest.fixture
async def gce() -> AsyncIterator[FakeGce]:
    async with FakeGce().serving() as made:
        yield made


@pytest.fixture
async def aws() -> AsyncIterator[FakeAws]:
    fake = FakeAws()
    fake.me = fake.add(1, "control_plane_default", "control-plane").instance_id
    async with fake.serving():
        yield fake


def _groups(stack: FakeOpenStack) -> OpenStackNodeGroups:
    return OpenStackNodeGroups(stack.access(), node_document=b"", pause_s=0.001, drain_s=0.001)


# XML


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp037"])
def test_a_document_type_hides_in_no_other_encoding(encoding: str) -> None:
    document = (
        '<?xml version="1.0" encoding="UTF-16"?>'
        '<!DOCTYPE a [<!ENTITY x "' + "A" * 1000 + '"><!ENTITY y "&x;&x;&x;&x;">]><a>&y;</a>'
    )
    with pytest.raises(FormatError):
        parse_xml(document.encode(encoding), what="answer")


def test_an_encoding_that_an_answer_claims_changes_nothing() -> None:
    said = '<?xml version="1.0" encoding="iso-8859-1"?><a>é</a>'
    assert parse_xml(said.encode(), what="answer").text() == "é"


# requests


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("https://127.0.0.1:port/", {}),
        ("https://127.0.0.1/" + "a" * 70_000, {}),
        ("http://127.0.0.1:1/", {"X-Auth-Token": "token\ufffd"}),
        ("http://127.0.0.1:1/", {"X-Auth-Token": "tok\u00e9n"}),
    ],
)
async def test_what_cannot_be_sent_is_malformed_and_not_a_bug(
    url: str, headers: dict[str, str]
) -> None:
    with pytest.raises(FormatError, match="cannot be sent") as caught:
        await rest.send("GET", url, headers=headers, body=None, timeout_s=5, max_bytes=10)
    assert "tok" not in str(caught.value)


# where a token goes


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/compute",
        "http://127.0.0.1:30092/compute",
        "http://localhost:1/compute",
        "http://192.0.2.1/compute",
        "ftp://127.0.0.1/compute",
        "https://127.0.0.1:port/compute",
        "https://user@127.0.0.1/compute",
        "https:///compute",
        "https://127.0.0.1/compute?to=elsewhere",
    ],
)
async def test_keystones_catalog_leads_no_request_to_this_machine(
    stack: FakeOpenStack, url: str
) -> None:
    stack.elsewhere["compute"] = url
    with pytest.raises(FormatError):
        await Region(stack.access()).caller("compute")


async def test_a_catalog_that_changes_ends_the_calls_of_before(stack: FakeOpenStack) -> None:
    region = Region(stack.access())
    compute = await region.caller("compute")
    stack.token_serial += 1
    stack.elsewhere["compute"] = "https://192.0.2.1/compute"
    with pytest.raises(Unavailable, match="is no service in Keystone's catalog any more"):
        await region.headers(method="GET", url=f"{compute.base_url}/x", body=b"", fresh=True)


@pytest.mark.parametrize(
    "region", ["x.example.org", "s3", "eu-west-1.elb", "eu-west-1/..", "eu-west-1a", "EU-WEST-1"]
)
async def test_a_region_that_is_none_leads_no_signed_request_anywhere(
    aws: FakeAws, region: str
) -> None:
    document = {
        "instanceId": aws.me,
        "privateIp": "10.42.0.4",
        "region": region,
        "availabilityZone": "eu-west-1a",
    }
    aws.told["dynamic/instance-identity/document"] = json.dumps(document)
    with pytest.raises(FormatError, match="region"):
        await AwsMetadata(url=aws.url).peers()
    assert aws.calls == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("dynamic/instance-identity/document", "[" * 10_000),
        ("dynamic/instance-identity/document", "x" * 70_000),
        ("meta-data/iam/security-credentials/", "a-role another-role"),
        ("meta-data/iam/security-credentials/", "../../dynamic"),
        ("meta-data/tags/instance/constellation-uid", "constell/../x"),
        ("meta-data/tags/instance/constellation-role", "owner"),
    ],
)
async def test_instance_metadata_that_is_none_is_refused(
    aws: FakeAws, path: str, text: str
) -> None:
    aws.told[path] = text
    metadata = AwsMetadata(url=aws.url, endpoint=f"{aws.url}/")
    ask = metadata.self_ if path.endswith("role") else metadata.peers
    with pytest.raises(FormatError):
        await ask()


@pytest.mark.parametrize("token", ["tok\u00e9n", "\ufffd"])
async def test_a_token_that_no_header_can_hold_is_malformed(aws: FakeAws, token: str) -> None:
    role = {
        "Code": "Success",
        "AccessKeyId": aws.key_id,
        "SecretAccessKey": "s",
        "Token": token,
        "Expiration": "2036-11-29T10:00:00Z",
    }
    aws.told["meta-data/iam/security-credentials/node-role"] = json.dumps(role)
    with pytest.raises(FormatError, match="ASCII"):
        await AwsMetadata(url=aws.url, endpoint=f"{aws.url}/").peers()
    aws.session = token
    with pytest.raises(FormatError, match="no token"):
        await Imds(url=aws.url).self_()


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/metadata/identity/oauth2/token",
        "http://127.0.0.1:1/blob",
        "https://192.0.2.1/blob",
        "https://evil.example/.blob.core.windows.net",
        "https://account.blob.core.windows.net.evil.example/",
        "https://account.blob.core.windows.net:8443/",
        "https://u@account.blob.core.windows.net/",
        "https://account.blob.core.windows.net:port/",
        "https://blob.core.windows.net/",
    ],
)
async def test_a_console_of_azure_is_read_at_azures_storage_alone(
    azure: FakeAzure, url: str
) -> None:
    azure.arm.twist = lambda path, answer: (
        {"serialConsoleLogBlobUri": url} if "retrieveBootDiagnosticsData" in path else answer
    )
    config = conf("azure")
    assert config.provider.azure is not None
    settings = azure_settings(config.provider.azure, variant=config.attestation.variant)
    token = WorkstationToken(environment={"GOOGLE_OAUTH_ACCESS_TOKEN": "eyJ0.1"})
    cloud = AzureCloud(settings, signer=token, arm_url=azure.arm.url)
    with pytest.raises(FormatError, match="not at Azure's storage"):
        await cloud.console(f"{azure.uid}-worker-default_0")


# lists


def _twice(path: str, answer: Any) -> Any:
    """Name the last machine of a list once more, at another address."""
    if path.endswith("servers/detail"):
        last = json.loads(json.dumps(answer["servers"][-1]))
        last["addresses"] = {
            "net": [{"addr": "10.9.9.9", "version": 4, "OS-EXT-IPS:type": "fixed"}]
        }
        return answer | {"servers": [*answer["servers"], last]}
    if path.endswith("/virtualMachines"):
        one = answer["value"][-1]
        return answer | {"value": [*answer["value"], one | {"instanceId": "77"}]}
    if path.endswith("aggregated/instances"):
        _, scope = next(iter(answer["items"].items()))
        one = scope["instances"][-1]
        other = one | {"networkInterfaces": [{"name": "nic0", "networkIP": "10.9.9.9"}]}
        return answer | {"items": {**answer["items"], "zones/x": {"instances": [other]}}}
    return answer


async def test_a_machine_that_is_listed_twice_is_refused_or_is_one(
    stack: FakeOpenStack, azure: FakeAzure, gce: FakeGce
) -> None:
    stack.service.twist = azure.arm.twist = gce.compute.twist = _twice
    for client in (
        _groups(stack),
        AzureNodeGroups(imds_url=azure.imds.url, arm_url=azure.arm.url, pause_s=0.001),
        GcpNodeGroups(metadata_url=gce.metadata_url, compute_url=gce.compute_url, pause_s=0.001),
    ):
        with pytest.raises(FormatError, match="listed twice"):
            await client.delete("anything")
    stack.service.twist = lambda path, answer: (
        answer | {"servers": answer["servers"] * 2} if path.endswith("servers/detail") else answer
    )
    assert len(await _groups(stack).list_instances()) == 2


def _machine(name: str, *, state: str = "running", address: str = "10.42.0.4") -> _Entry:
    instance = Instance(instance_id=name, group="g", role=Role.WORKER, address=address, state=state)
    return _Entry(instance=instance)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Entry:
    instance: Instance


def test_a_state_that_changed_between_two_pages_is_no_other_machine() -> None:
    pages = (_machine("b", state="starting"), _machine("a"), _machine("b"))
    assert [(e.instance.instance_id, e.instance.state) for e in once_each(pages, what="x")] == [
        ("a", "running"),
        ("b", "running"),
    ]
    with pytest.raises(FormatError, match="listed twice"):
        once_each((*pages, _machine("a", address="10.42.0.5")), what="x")


def test_a_list_is_bounded_over_all_its_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    listing_ = Listing("machines", most_pages=3)
    for _ in range(3):
        listing_.page(1)
    with pytest.raises(FormatError, match="more than 3 pages"):
        listing_.page(1)
    full = Listing("machines", most_pages=99)
    full.page(listing.MOST_ENTRIES)
    with pytest.raises(FormatError, match="more than 20000 entries"):
        full.page(1)
    slow = Listing("machines", most_pages=99)
    slow.page(1)
    later = listing.monotonic_s() + 301
    monkeypatch.setattr(listing, "monotonic_s", lambda: later)
    with pytest.raises(Unavailable, match="not whole after 300 s"):
        slow.page(1)


@pytest.mark.parametrize("cloud", ["openstack", "azure", "gcp"])
async def test_a_list_without_an_end_is_refused(
    cloud: str,
    stack: FakeOpenStack,
    azure: FakeAzure,
    gce: FakeGce,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (servers, scale_sets, instances):
        monkeypatch.setattr(module, "_MOST_PAGES", 5)
    first: list[Any] = []

    def endless(path: str, answer: Any) -> Any:
        if path.endswith("servers/detail"):
            first.append(answer["servers"])
            return {"servers": first[0], "servers_links": [{"rel": "next", "href": "x"}]}
        if path.endswith("virtualMachineScaleSets"):
            place = path.format(subscription=SUBSCRIPTION, resource_group=RESOURCE_GROUP)
            return {"value": [], "nextLink": f"{azure.arm.url}{place}?api-version=2024-07-01"}
        return answer | {"nextPageToken": "p0"} if "aggregated" in path else answer

    stack.service.twist = azure.arm.twist = gce.compute.twist = endless
    client = {
        "openstack": _groups(stack),
        "azure": AzureNodeGroups(imds_url=azure.imds.url, arm_url=azure.arm.url),
        "gcp": GcpNodeGroups(metadata_url=gce.metadata_url, compute_url=gce.compute_url),
    }[cloud]
    with pytest.raises(FormatError, match="more than 5 pages"):
        await client.list_instances()


# what is removed, and what is shown


async def test_a_list_that_is_not_filtered_costs_nobody_his_port(stack: FakeOpenStack) -> None:
    made = await _groups(stack).create("worker_default")
    everything = dict(stack.ports)
    own = stack.servers[made.instance_id].name

    def unfiltered(path: str, answer: Any) -> Any:
        if path != "/network/v2.0/ports" or "ports" not in answer:
            return answer
        return {"ports": [{"id": i, "name": n} for i, (n, _) in everything.items()]}

    stack.service.twist = unfiltered
    await _groups(stack).delete(made.instance_id)
    assert set(everything) - set(stack.ports) == {i for i, (n, _) in everything.items() if n == own}


def test_a_clouds_own_words_are_shown_and_not_obeyed() -> None:
    evil = "net\x1b[2J\n"
    fields = answers.Fields({evil: [1], "items": {evil: 1}}, "server")
    with pytest.raises(FormatError) as caught:
        fields.items(evil)
    assert str(caught.value).isprintable()
    with pytest.raises(FormatError) as caught:
        fields.fields("items").values()
    assert str(caught.value).isprintable()
