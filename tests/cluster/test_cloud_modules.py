"""Azure's, Google's and OpenStack's modules against the providers' complete schemas, by Terraform.

Plan and apply run against a provider in this process that makes resources in memory: what a real
cloud would answer is not known here, what Terraform makes of our files is.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, get_args

import pytest
from pydantic.alias_generators import to_camel

from constellation.config.schema import Provider
from tests.fakes.terraform.settings import CLOUDS, HOME, variables
from tests.fakes.terraform.workbench import Workbench, workbench

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = [pytest.mark.cluster, pytest.mark.clouds]

NETWORKS = {
    "azurerm_virtual_network",
    "azurerm_subnet",
    "azurerm_nat_gateway",
    "google_compute_network",
    "google_compute_subnetwork",
    "google_compute_router_nat",
    "openstack_networking_network_v2",
    "openstack_networking_subnet_v2",
    "openstack_networking_router_v2",
}
IAM = {
    "azure": {
        "subscription": "0b1c2d3e-0000-4000-8000-000000000001",
        "region": "germanywestcentral",
        "resource_group": "constell-rg",
        "name": "constell",
    },
    "gcp": {"project": "project", "name": "constell"},
}


@contextlib.asynccontextmanager
async def _bench(cloud: str, folder: Path, **changed: Any) -> AsyncIterator[Workbench]:
    async with workbench(cloud, cloud, folder, variables(cloud, **changed)) as bench:
        yield bench


@pytest.mark.parametrize("cloud", CLOUDS)
async def test_a_module_fits_the_schema_is_made_and_leaves_nothing(
    cloud: str, tmp_path: Path
) -> None:
    async with _bench(cloud, tmp_path) as bench:
        for words in (("validate", "-no-color"), ("apply", "-auto-approve", "-no-color")):
            ran = await bench.run(*words)
            assert ran.code == 0, ran.said
        again = await bench.run("plan", "-detailed-exitcode", "-no-color")
        assert again.code == 0, again.said
        assert bench.provider.resources
        kept = json.loads((tmp_path / "terraform.tfstate").read_text())
        assert _secrets(kept) == []
        gone = await bench.run("destroy", "-auto-approve", "-no-color")
        assert gone.code == 0, gone.said
        assert not bench.provider.resources


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("azure/nodes.tf", "overprovision ", "over_provision ", "Unsupported argument"),
        ("azure/nodes.tf", "sku  ", "# sku ", 'The argument "sku" is required'),
        ("azure/nodes.tf", "  data_disk {", "  data_disks {", "Unsupported block type"),
        ("gcp/nodes.tf", "confidential_instance_type", "kind", "Unsupported argument"),
        ("gcp/nodes.tf", "  machine_type ", "  # machine_type ", '"machine_type" is required'),
        ("gcp/network.tf", '"google_compute_router"', '"google_compute_x"', "does not support"),
        ("openstack/load_balancer.tf", "allowed_cidrs", "allowed_cidr", "Unsupported argument"),
        ("openstack/load_balancer.tf", "protocol_port", "# x", '"protocol_port" is required'),
    ],
)
async def test_what_the_schema_does_not_have_is_found(
    file: str, old: str, new: str, said: str, tmp_path: Path
) -> None:
    cloud, name = file.split("/")
    async with _bench(cloud, tmp_path) as bench:
        bench.edit(name, old, new)
        ran = await bench.run("validate", "-no-color")
        assert ran.code != 0
        assert said in " ".join(ran.said.split())


@pytest.mark.parametrize("cloud", sorted(IAM))
async def test_the_iam_module_fits_the_schema(cloud: str, tmp_path: Path) -> None:
    async with workbench(cloud, f"iam/{cloud}", tmp_path, IAM[cloud]) as bench:
        made = await bench.plan()
        roles = [v for a, v in made.items() if "custom_role" in a or "role_definition" in a]
        assert len(roles) == 2
        applied = await bench.run("apply", "-auto-approve", "-no-color")
        assert applied.code == 0, applied.said
        said = json.loads((await bench.run("output", "-json")).said)["configuration"]["value"]
        assert set(said) <= set(_keys(cloud))
        assert "*" not in str([r.get("permissions") for r in roles])


@pytest.mark.parametrize(("cloud", "roles"), [("azure", 4), ("gcp", 4)])
async def test_a_clouds_own_components_get_roles_of_their_own(
    cloud: str, roles: int, tmp_path: Path
) -> None:
    wanted = IAM[cloud] | {"cloud_integration": True}
    async with workbench(cloud, f"iam/{cloud}", tmp_path, wanted) as bench:
        made = await bench.plan()
        found = [v for a, v in made.items() if "custom_role" in a or "role_definition" in a]
        assert len(found) == roles
        applied = await bench.run("apply", "-auto-approve", "-no-color")
        assert applied.code == 0, applied.said


async def test_azures_own_components_tell_machines_apart_and_reach_them(tmp_path: Path) -> None:
    rule = "azurerm_network_security_rule.service_probes"
    async with _bench("azure", tmp_path) as bench:
        made = await bench.plan()
        assert not [a for a in made if a.startswith(rule)]
        sets = [v for a, v in made.items() if a.startswith("azurerm_linux_virtual_machine_scale")]
        assert len(sets) == len({s["computer_name_prefix"] for s in sets}) > 1
        assert all(s["computer_name_prefix"] == s["name"] for s in sets)
        (network,) = {s["tags"]["constellation-network"] for s in sets}
        group, name, subnet = network.split("/")
        assert (group, f"{name}-nodes") == (sets[0]["resource_group_name"], subnet)
        bench.write(variables("azure", cloud_integration=True))
        (probes,) = [v for a, v in (await bench.plan()).items() if a.startswith(rule)]
        assert probes["source_address_prefix"] == "AzureLoadBalancer"
        assert probes["destination_port_range"] == "30100-32767"


@pytest.mark.parametrize("cloud", CLOUDS)
async def test_ports_are_open_to_those_named_and_closed_after_init(
    cloud: str, tmp_path: Path
) -> None:
    async with _bench(cloud, tmp_path) as bench:
        assert _opened(cloud, await bench.plan()) == {
            6443: {"0.0.0.0/0"},
            9000: set(HOME),
            9999: set(HOME),
            30081: {"0.0.0.0/0"},
            30091: set(HOME),
        }
        bench.write(variables(cloud, initialised=True))
        assert 9000 not in _opened(cloud, await bench.plan())
        nobody: dict[str, list[str]] = {
            key: [] for key in ("api", "init", "recovery", "verify", "policy")
        }
        bench.write(variables(cloud, access=nobody | {"node_ports": []}))
        assert _opened(cloud, await bench.plan()) == {}
        bench.write(variables(cloud, access=nobody | {"node_ports": HOME}))
        made = str(await bench.plan())
        assert "30100" in made
        assert "32767" in made


async def test_load_balancers_of_services_reach_node_ports_only_where_they_are_wanted(
    tmp_path: Path,
) -> None:
    rule = "openstack_networking_secgroup_rule_v2.services"
    async with _bench("openstack", tmp_path) as bench:
        assert not any(a.startswith(rule) for a in await bench.plan())
        bench.write(variables("openstack", cloud_integration=True))
        made = [r for a, r in (await bench.plan()).items() if a.startswith(rule)]
    assert sorted(r["protocol"] for r in made) == ["tcp", "tcp", "udp", "udp"]
    assert {r["remote_ip_prefix"] for r in made} == {"10.42.0.0/16"}
    assert {(r["port_range_min"], r["port_range_max"]) for r in made} == {(30100, 32767)}


@pytest.mark.parametrize("cloud", CLOUDS)
async def test_an_internal_load_balancer_has_no_public_address(cloud: str, tmp_path: Path) -> None:
    public = {"azure": "azurerm_public_ip.outside", "gcp": "google_compute_address.outside",
              "openstack": "openstack_networking_floatingip_v2"}  # fmt: skip
    async with _bench(cloud, tmp_path) as bench:
        assert any(a.startswith(public[cloud]) for a in await bench.plan())
        bench.write(variables(cloud, internal_load_balancer=True))
        made = await bench.plan()
        assert not any(a.startswith(public[cloud]) for a in made)
        assert 6443 in _opened(cloud, made)


@pytest.mark.parametrize("cloud", CLOUDS)
async def test_an_existing_network_is_used_as_it_is(cloud: str, tmp_path: Path) -> None:
    network = {
        "azure": {"subnet_id": "/subscriptions/x/subnets/mine"},
        "gcp": {"network": "projects/x/mine", "subnetwork": "projects/x/sub/mine"},
        "openstack": {"network_id": "mine", "subnet_id": "mine-too"},
    }[cloud]
    async with _bench(cloud, tmp_path, existing_network=network) as bench:
        made = await bench.plan()
        kinds = {address.partition(".")[0] for address in made}
        assert not kinds & NETWORKS
        assert "mine" in str(made)


@pytest.mark.parametrize(
    ("cloud", "variant", "expected"),
    [
        ("azure", "azure-sev-snp", "'security_encryption_type': 'VMGuestStateOnly'"),
        ("azure", "azure-tdx", "'security_encryption_type': 'VMGuestStateOnly'"),
        ("azure", "azure-trustedlaunch", "'security_encryption_type': None"),
        ("gcp", "gcp-sev-snp", "'confidential_instance_type': 'SEV_SNP'"),
        ("gcp", "gcp-tdx", "'confidential_instance_type': 'TDX'"),
        ("gcp", "gcp-sev-es", "'confidential_instance_type': 'SEV'"),
    ],
)
async def test_a_variant_makes_machines_of_its_kind(
    cloud: str, variant: str, expected: str, tmp_path: Path
) -> None:
    async with _bench(cloud, tmp_path, variant=variant) as bench:
        made = str(await bench.plan())
        assert expected in made
        assert "'vtpm_enabled': True" in made or "'enable_vtpm': True" in made


@pytest.mark.parametrize("cloud", CLOUDS)
async def test_wrong_variables_are_refused(cloud: str, tmp_path: Path) -> None:
    async with _bench(cloud, tmp_path) as bench:
        for changed in ({"uid": "Constell"}, {"variant": "local-vtpm"}):
            bench.write(variables(cloud, **changed))
            ran = await bench.run("plan", "-input=false", "-no-color")
            assert ran.code != 0
            assert "Invalid value for variable" in ran.said


def _keys(cloud: str) -> set[str]:
    """Name what may stand in the configuration's block of a cloud."""
    block = Provider.model_fields[cloud].annotation
    (model,) = (kind for kind in get_args(block) if kind is not type(None))
    return {to_camel(name) for name in model.model_fields}


def _secrets(value: Any, name: str = "") -> list[str]:
    """Name what a state file has under a name that a secret would have."""
    if isinstance(value, dict):
        return [found for k, v in value.items() for found in _secrets(v, k)]
    if isinstance(value, list):
        return [found for v in value for found in _secrets(v, name)]
    secret = any(word in name for word in ("password", "secret", "private_key", "token"))
    return [name] if secret and isinstance(value, str) and value else []


def _opened(cloud: str, made: dict[str, dict[str, Any]]) -> dict[int, set[str]]:
    """Give ports and networks that the rules for the outside open."""
    found: dict[int, set[str]] = {}
    for address, values in made.items():
        if cloud == "gcp" and address.startswith("google_compute_firewall.outside"):
            (allow,) = values["allow"]
            found[int(allow["ports"][0])] = set(values["source_ranges"])
        if cloud == "azure" and address.startswith("azurerm_network_security_rule.outside"):
            found[int(values["destination_port_range"])] = set(values["source_address_prefixes"])
        if cloud == "openstack" and address.startswith("openstack_lb_listener_v2"):
            # the nodes themselves reach the API server by the same listener
            networks = set(values["allowed_cidrs"]) - {"10.42.0.0/16"}
            if networks:
                found[values["protocol_port"]] = networks
    return found
