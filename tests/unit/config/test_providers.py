"""The provider blocks: one provider, its strongest variant by default, machines that it has."""

from __future__ import annotations

import pytest

from constellation.attestation.model import Variant
from constellation.base.errors import UserError
from constellation.config.machines import wanted_groups
from constellation.config.providers.catalogues import ProviderName, catalogue
from constellation.config.reader import parse_config
from constellation.config.schema import Config
from constellation.config.writer import dump_example
from constellation.providers.catalogue import CostClass, Machine, cost_class
from constellation.providers.protocols import Group, Role

AWS = "version: 1\nprovider: {aws: {region: eu-west-1, zones: [eu-west-1a, eu-west-1b]}}\n"


def _read(text: str) -> Config:
    return parse_config(text.encode(), name="conf")


def _fault(text: str) -> str:
    with pytest.raises(UserError) as caught:
        _read(text)
    return str(caught.value)


@pytest.mark.parametrize("name", list(ProviderName))
def test_each_provider_has_a_default_that_needs_no_words_but_where_nothing_strong_is(
    name: ProviderName,
) -> None:
    strongest = catalogue(name).strongest
    assert bool(strongest.weak) == (name is ProviderName.OPENSTACK)
    assert len({o.variant for o in catalogue(name).offers}) == len(catalogue(name).offers)


def test_without_a_variant_it_is_the_strongest_of_the_provider() -> None:
    assert _read(AWS).attestation.variant is Variant.AWS_SEV_SNP
    assert _read(AWS + "attestation: {minimumRelease: 1.0.0}\n").attestation.variant is (
        Variant.AWS_SEV_SNP
    )
    assert Config().attestation.variant is Variant.LOCAL_VTPM


def test_a_weaker_variant_needs_words_and_then_is_taken() -> None:
    text = AWS + "attestation: {variant: aws-nitro-tpm%s}\n"
    assert _fault(text % "").startswith(
        "conf:3: attestation: expected acceptWeaker to say why aws-nitro-tpm will do, found "
        "nothing: AWS' hypervisor sees the memory"
    )
    assert "acceptWeaker" in _fault(text % ", acceptWeaker: '  '")
    assert _read(text % ", acceptWeaker: a test").attestation.variant is Variant.AWS_NITRO_TPM


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            AWS + "attestation: {variant: gcp-tdx}\n",
            (
                "conf:3: attestation: expected a variant of aws (aws-sev-snp, aws-nitro-tpm), "
                "found gcp-tdx"
            ),
        ),
        (
            "version: 1\nprovider: {local: {}, baremetal: {hosts: {}, endpoint: 'a:1'}}\n",
            "conf:2: provider: expected one provider, found local, baremetal",
        ),
        (
            "version: 1\nprovider: {aws: {region: eu-west-1, zones: [eu-west-2a]}}\n",
            "conf:2: provider.aws: expected zones of eu-west-1, found eu-west-2a",
        ),
        (
            (
                "version: 1\nprovider: {aws: {region: eu-west-1, zones: [eu-west-1a], vpcID: "
                "vpc-0123456789abcdef0}}\n"
            ),
            "conf:2: provider.aws: expected vpcID and subnetIDs together, found one of them",
        ),
        (
            (
                "version: 1\nprovider: {aws: {region: eu-west-1, zones: [eu-west-1a], "
                "access: {api: [10.0.0.1/8]}}}\n"
            ),
            (
                "conf:2: provider.aws.access.api: expected IPv4 networks like 192.0.2.0/24, found "
                "'10.0.0.1/8'"
            ),
        ),
        (
            (
                "version: 1\nprovider: {aws: {region: eu-west-1, zones: [eu-west-1a], "
                "tags: {constellation-uid: x}}}\n"
            ),
            "conf:2: provider.aws.tags: expected tags of your own, found 'constellation-uid'",
        ),
        (
            AWS + "nodeGroups: {a: {role: control-plane, size: 1, instanceType: m5.large}}\n",
            "conf:3: nodeGroups: a: expected an instanceType of aws-sev-snp (m6a.xlarge,",
        ),
        (
            AWS + "nodeGroups: {a: {role: control-plane, size: 1, stateDiskType: pd-ssd}}\n",
            "conf:3: nodeGroups: a: expected a stateDiskType of gp3, gp2, io1, io2, found pd-ssd",
        ),
        (
            "version: 1\nnodeGroups: {a: {role: control-plane, size: 1, stateDiskGB: 20}}\n",
            "conf:2: nodeGroups: a: expected no stateDiskGB: these machines are what they are",
        ),
    ],
)
def test_what_does_not_fit_the_provider_is_refused_with_its_line(text: str, message: str) -> None:
    assert _fault(text).startswith(message)


def test_groups_are_asked_for_with_all_defaults_filled_in() -> None:
    groups = "nodeGroups: {a: {role: control-plane, size: 1, zones: [eu-west-1b]}}\n"
    assert wanted_groups(_read(AWS + groups)) == (
        Group(
            name="a",
            role=Role.CONTROL_PLANE,
            size=1,
            instance_type="m6a.xlarge",
            zones=("eu-west-1b",),
            state_disk_gb=30,
            state_disk_type="gp3",
        ),
    )
    assert wanted_groups(_read(AWS))[0].zones == ("eu-west-1a", "eu-west-1b")
    assert wanted_groups(Config())[0] == Group(
        name="control_plane_default", role=Role.CONTROL_PLANE, size=1
    )


def test_an_example_of_a_cloud_reads_back_as_itself() -> None:
    config = _read(AWS)
    assert _read(dump_example(config)) == config


def test_another_cloud_takes_machines_of_its_own_names() -> None:
    text = (
        "version: 1\nprovider: {openstack: {cloud: mine}}\n"
        "attestation: {variant: qemu-vtpm, acceptWeaker: a test}\n"
        "nodeGroups: {a: {role: control-plane, size: 1, instanceType: my.flavour}}\n"
    )
    assert wanted_groups(_read(text))[0].instance_type == "my.flavour"


@pytest.mark.parametrize(
    ("count", "expected"), [(3, CostClass.LOW), (4, CostClass.MEDIUM), (16, CostClass.HIGH)]
)
def test_the_cost_class_goes_by_virtual_cpus(count: int, expected: CostClass) -> None:
    assert cost_class(((Machine(name="m", vcpus=4, memory_gib=8), count),)) is expected
