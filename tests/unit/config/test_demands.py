from __future__ import annotations

import pytest

from constellation.attestation import snp
from constellation.attestation.node_rules import NodeIdentity, ReferenceValues, node_policy
from constellation.attestation.registry import published_roots
from constellation.attestation.tdx.appraise import STRICT_STATUSES
from constellation.base.errors import Rejected
from constellation.config.demands import platform_demands
from constellation.config.schema import Config
from tests.fakes.cloud_confs import conf

IDENTITY = NodeIdentity(document=b"document", cluster_id=None)


def test_the_local_cloud_demands_nothing_of_chips() -> None:
    assert platform_demands(Config()) is None
    assert platform_demands(conf("openstack")) is None


def test_google_machines_are_of_the_project_of_the_configuration() -> None:
    demands = platform_demands(conf("gcp", project="another-1"))
    assert demands is not None
    assert demands.project_ids == ("another-1",)
    assert demands.minimum_tcb == dict(snp.MINIMUM_TCB)
    assert demands.tdx_statuses == ()


def test_azure_demands_the_oldest_accepted_firmware_of_each_line() -> None:
    demands = platform_demands(conf("azure"))
    assert demands is not None
    assert demands.minimum_tcb == dict(snp.MINIMUM_TCB)
    assert demands.project_ids == ()


def test_a_td_must_be_up_to_date() -> None:
    config = conf("gcp", variant="gcp-tdx")
    demands = platform_demands(config)
    assert demands is not None
    assert demands.tdx_statuses == STRICT_STATUSES
    assert demands.chips == ()


@pytest.mark.parametrize("cloud", ["azure", "gcp"])
def test_with_them_there_are_rules_for_a_node_and_authorities(cloud: str) -> None:
    config = conf(cloud)
    values = ReferenceValues(
        registers={4: (bytes(32),), 9: (bytes(32),), 11: (bytes(32),)},
        launch={"measurement": (bytes(48),)},
    )
    variant = config.attestation.variant
    assert node_policy(variant, values, demands=platform_demands(config), identity=IDENTITY)
    with pytest.raises(Rejected, match="demands nothing"):
        node_policy(variant, values, demands=None, identity=IDENTITY)
    assert published_roots(variant)
