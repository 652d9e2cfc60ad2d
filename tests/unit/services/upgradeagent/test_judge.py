"""An order of yesterday, another version, another list, a step back: none of it is obeyed."""

from __future__ import annotations

import dataclasses

import pytest

from constellation.base.errors import Conflict, FormatError, Rejected
from constellation.services.upgradeagent.judge import (
    Target,
    image_tag,
    judge_list,
    judge_target,
    judge_version,
)
from constellation.trust import artifact_list
from constellation.trust.artifact_list import ArtifactList
from tests.fakes.control_plane import NEW
from tests.fakes.upgrade_policy import policy_of

LIST = artifact_list.dump(ArtifactList(kubernetes_version=NEW, artifacts=()))
POLICY = policy_of(LIST, kubernetes=NEW, serial=7)
TARGET = Target(policy_serial=7, kubernetes=NEW)


def test_the_order_of_the_kept_policy_is_obeyed() -> None:
    judge_target(TARGET, policy=POLICY)
    assert judge_list(LIST, target=TARGET, policy=POLICY).kubernetes_version == NEW


@pytest.mark.parametrize("serial", [6, 8])
def test_an_order_of_another_policy_is_a_conflict(serial: int) -> None:
    with pytest.raises(Conflict, match=f"policy {serial}, this node obeys 7"):
        judge_target(dataclasses.replace(TARGET, policy_serial=serial), policy=POLICY)


def test_another_version_than_the_policys_is_refused() -> None:
    with pytest.raises(Rejected, match=r"v1\.36\.1.*expected v1\.36\.2"):
        judge_target(dataclasses.replace(TARGET, kubernetes="v1.36.1"), policy=POLICY)


def test_a_list_that_the_policy_does_not_name_is_refused() -> None:
    with pytest.raises(Rejected, match="artifact list: found SHA-256"):
        judge_list(LIST + b" ", target=TARGET, policy=POLICY)


def test_a_named_list_of_another_version_is_malformed() -> None:
    other = artifact_list.dump(ArtifactList(kubernetes_version="v1.36.1", artifacts=()))
    with pytest.raises(FormatError, match=r"v1\.36\.1, want v1\.36\.2"):
        judge_list(other, target=TARGET, policy=policy_of(other, kubernetes=NEW, serial=7))


@pytest.mark.parametrize("running", ["v1.36.2", "v1.36.1", "v1.35.3"])
def test_the_same_version_a_patch_and_one_minor_may_be_reached(running: str) -> None:
    judge_version(running, target=TARGET)


@pytest.mark.parametrize(
    ("running", "why"),
    [("v1.36.3", "back"), ("v1.34.9", "skips"), ("v0.36.2", "skips"), ("v2.0.0", "back")],
)
def test_back_or_over_a_minor_version_is_not(running: str, why: str) -> None:
    with pytest.raises(Conflict, match=why):
        judge_version(running, target=TARGET)


def test_the_tag_of_a_static_pod_is_read_and_two_are_refused() -> None:
    one = b"spec:\n  containers:\n  - image: registry.k8s.io/kube-apiserver:v1.36.2\n    name: a\n"
    assert image_tag(one) == "v1.36.2"
    with pytest.raises(FormatError, match="2 image tags"):
        image_tag(one + b"  - image: registry.k8s.io/other:v2\n")
    with pytest.raises(FormatError, match="0 image tags"):
        image_tag(b"spec: {}\n")
