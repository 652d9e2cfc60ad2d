"""The cluster policy: signed by this cluster's owner, never older than seen, never repaired."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.attestation.node_rules import ChipMinimum, PlatformDemands
from constellation.attestation.snp import MINIMUM_TCB, Line
from constellation.attestation.tdx.status import TcbStatus
from constellation.base import decode
from constellation.base.errors import FormatError, Untrusted
from constellation.crypto import signing
from constellation.trust.cluster_policy import (
    AcceptedRelease,
    ClusterPolicy,
    SignedPolicy,
    dump_policy,
    dump_signed_policy,
    parse_policy,
    parse_signed_policy,
    sign_policy,
    verify_policy,
)

CLUSTER = bytes([7]) * 32
OWNER = signing.generate_key()
OWNER_DER = signing.spki(OWNER.public_key())

RELEASE = AcceptedRelease(
    name="0.1.0",
    not_before=100,
    not_after=200,
    image_digest=bytes(32),
    reference={4: (bytes([4]) * 32,), 9: (bytes([9]) * 32, bytes([10]) * 32)},
)
POLICY = ClusterPolicy(
    cluster_id=CLUSTER,
    serial=3,
    releases=(RELEASE,),
    trust_roots=(b"root",),
    artifact_lists={"v1.36.2": bytes(32)},
    services_bundle=bytes(32),
    kubernetes_version="v1.36.2",
    join_public_key=b"join",
)


def _verify(signed: SignedPolicy, *, serial: int = 1, cluster: bytes = CLUSTER) -> ClusterPolicy:
    return verify_policy(
        signed, owner_public_key=OWNER_DER, cluster_id=cluster, minimum_serial=serial
    )


def test_a_signed_policy_is_verified_and_read_again() -> None:
    signed = parse_signed_policy(dump_signed_policy(sign_policy(POLICY, OWNER)))
    assert _verify(signed, serial=3) == POLICY


def test_registers_survive_as_numbers() -> None:
    assert parse_policy(dump_policy(POLICY)).releases[0].reference == RELEASE.reference


@given(st.integers(min_value=0), st.integers(min_value=0, max_value=7))
def test_any_flipped_bit_of_the_policy_is_untrusted(position: int, bit: int) -> None:
    signed = sign_policy(POLICY, OWNER)
    changed = bytearray(signed.policy)
    changed[position % len(changed)] ^= 1 << bit
    with pytest.raises(Untrusted):
        _verify(dataclasses.replace(signed, policy=bytes(changed)))


def test_another_owner_is_untrusted() -> None:
    with pytest.raises(Untrusted):
        _verify(sign_policy(POLICY, signing.generate_key()))


def test_an_older_serial_than_seen_is_untrusted() -> None:
    with pytest.raises(Untrusted, match="found serial 3, expected at least 4"):
        _verify(sign_policy(POLICY, OWNER), serial=4)


def test_a_policy_for_another_cluster_is_untrusted() -> None:
    with pytest.raises(Untrusted):
        _verify(sign_policy(POLICY, OWNER), cluster=bytes(32))


def test_a_policy_that_names_another_cluster_than_its_signature_is_untrusted() -> None:
    data = dump_policy(dataclasses.replace(POLICY, cluster_id=bytes(32)))
    signature = signing.sign(
        OWNER, data, label="constellation-cluster-policy-v1", cluster_id=CLUSTER, purpose="policy"
    )
    with pytest.raises(Untrusted, match="clusterID"):
        _verify(SignedPolicy(policy=data, signature=signature))


def test_a_signed_policy_in_another_spelling_is_a_format_error() -> None:
    data = dump_policy(POLICY) + b" "
    signature = signing.sign(
        OWNER, data, label="constellation-cluster-policy-v1", cluster_id=CLUSTER, purpose="policy"
    )
    with pytest.raises(FormatError, match="canonical"):
        _verify(SignedPolicy(policy=data, signature=signature))


@pytest.mark.parametrize(
    "change",
    [
        {"serial": 0},
        {"releases": ()},
        {"trust_roots": ()},
        {"join_public_key": b""},
        {"cluster_id": b"short"},
        {"services_bundle": bytes(31)},
        {"artifact_lists": {"v1.36.2": bytes(31)}},
        {"kubernetes_version": "v1.35.3"},
    ],
    ids=str,
)
def test_a_policy_with_a_gap_is_a_format_error(change: dict[str, object]) -> None:
    with pytest.raises(FormatError):
        dataclasses.replace(POLICY, **change)


@pytest.mark.parametrize(
    "values", [(), (bytes(31),), (bytes(32), bytes(48))], ids=["none", "short", "of two banks"]
)
def test_a_register_without_a_whole_value_is_a_format_error(values: tuple[bytes, ...]) -> None:
    with pytest.raises(FormatError, match="register 4"):
        dataclasses.replace(RELEASE, reference={4: values})


@pytest.mark.parametrize("values", [(), (bytes(32),)], ids=["none", "short"])
def test_a_launch_claim_without_a_whole_value_is_a_format_error(values: tuple[bytes, ...]) -> None:
    with pytest.raises(FormatError, match="mr_td"):
        dataclasses.replace(RELEASE, launch={"mr_td": values})


@pytest.mark.parametrize(
    ("time_s", "accepted"), [(99, False), (100, True), (199, True), (200, False)]
)
def test_a_window_is_half_open(time_s: int, accepted: bool) -> None:
    assert RELEASE.accepted_at(time_s) is accepted


def test_what_the_owner_demands_of_chips_and_clouds_is_signed_with_the_rest() -> None:
    demands = PlatformDemands(
        chips=(ChipMinimum(line=Line.MILAN, tcb=MINIMUM_TCB[Line.MILAN]),),
        chip_roots=(b"root",),
        tdx_statuses=(TcbStatus.UP_TO_DATE,),
        minimum_tcb_evaluation=17,
        project_ids=("project",),
        csp_ids=(),
    )
    policy = dataclasses.replace(POLICY, platform=demands)
    assert parse_policy(dump_policy(policy)) == policy


def test_a_window_without_an_end_stays_open() -> None:
    assert dataclasses.replace(RELEASE, not_after=None).accepted_at(10**12)


@given(st.binary(max_size=300))
def test_junk_is_a_format_error(junk: bytes) -> None:
    with pytest.raises(FormatError):
        parse_policy(junk)
    with pytest.raises(FormatError):
        parse_signed_policy(junk)


def test_an_unknown_key_is_a_format_error() -> None:
    data = decode.dump({**decode.load_value(dict[str, str], {}, what="x"), "debug": True})
    with pytest.raises(FormatError):
        parse_policy(data)


def test_a_policy_of_an_earlier_build_is_named_as_such() -> None:
    said = json.loads(dump_policy(POLICY))
    del said["artifact_sources"], said["provider_access"]
    with pytest.raises(FormatError, match="nothing of provider_access, artifact_sources: an earl"):
        parse_policy(json.dumps(said, sort_keys=True, separators=(",", ":")).encode())
