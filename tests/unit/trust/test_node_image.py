"""Evidence names the image whose values it shows, all of them, and no other."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from constellation.trust.node_image import image_of, wanted_image
from tests.fakes.cluster_machines import release_of
from tests.fakes.upgrade_policy import policy_of

if TYPE_CHECKING:
    from constellation.trust.cluster_policy import ClusterPolicy

OLD, NEW = b"o" * 32, b"n" * 32


def both() -> ClusterPolicy:
    policy = policy_of(b"{}", kubernetes="v1.36.2", serial=2, images=(NEW, OLD))
    new, old = policy.releases
    return dataclasses.replace(policy, releases=(new, dataclasses.replace(old, not_after=100)))


def claims(image: bytes) -> dict[str, object]:
    return {f"pcr{n}": values[0] for n, values in release_of(image).reference.items()}


def test_evidence_names_the_image_whose_values_it_shows() -> None:
    assert image_of(claims(OLD), both()) == OLD
    assert image_of(claims(NEW), both()) == NEW


def test_one_other_register_names_none() -> None:
    for register in claims(OLD):
        assert image_of(claims(OLD) | {register: bytes(31) + b"x"}, both()) == b""
        assert image_of({k: v for k, v in claims(OLD).items() if k != register}, both()) == b""
    mixed = claims(OLD) | {"pcr4": claims(NEW)["pcr4"]}
    assert image_of(mixed, both()) in (b"", NEW)


def test_nodes_of_now_get_the_image_without_an_end() -> None:
    assert wanted_image(both()) == NEW
    ends = tuple(dataclasses.replace(r, not_after=100) for r in both().releases)
    assert wanted_image(dataclasses.replace(both(), releases=ends)) == b""
