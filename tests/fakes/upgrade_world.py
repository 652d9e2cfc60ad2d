"""A maker whose releases name images that the machines can boot, and the owner's policies."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from constellation.attestation.model import Variant
from constellation.releases.repository import LIFETIMES
from constellation.releases.site import Site, fetch_chain
from constellation.trust.cluster_policy import SignedPolicy, parse_policy, sign_policy
from constellation.trust.policy_acceptance import OfferedPolicy
from constellation.trust.policy_judgement import Judge
from constellation.trust.release import ReferenceSet
from constellation.trust.release_chain import dump_chain, verify_chain
from constellation.trust.release_rules import Target, finish_policy, next_policy, seen_by
from tests.fakes import release_world
from tests.fakes.cluster_machines import release_of
from tests.fakes.release_world import Maker
from tests.fakes.tpm import NOW

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from constellation.trust.release import Release
    from tests.fakes.cluster_machines import Cluster


@dataclass
class Upgrades:
    """What the owner of `cluster` does with the releases of one maker, at `now`."""

    cluster: Cluster
    folder: Path
    now: datetime = NOW
    maker: Maker = field(init=False)

    def __post_init__(self) -> None:
        self.maker = Maker(
            folder=self.folder, now=self.now, lifetimes=LIFETIMES | {"timestamp": timedelta(days=1)}
        ).create()

    def publish(self, version: str, image: bytes, **changes: object) -> Release:
        """Publish a release with this node image (SHA-256, 32 bytes)."""
        entry = release_of(image)
        registers = {n: tuple(v.hex() for v in values) for n, values in entry.reference.items()}
        made = release_world.release(
            version,
            images=(
                release_world.image(
                    version,
                    sha256=image.hex(),
                    reference=(ReferenceSet(not_before=0, not_after=None, registers=registers),),
                ),
            ),
            **changes,
        )
        self.maker.publish(made)
        return made

    async def chain(self, version: str | None = None) -> bytes:
        site = Site(place=str(self.maker.folder))
        found = await fetch_chain(site, pinned_root=self.maker.pinned_root, version=version)
        return dump_chain(found)

    async def to(
        self, version: str, current: SignedPolicy, *, kubernetes: str = "", **changes: object
    ) -> OfferedPolicy:
        """Sign the policy of a roll-out from `current` to a release, with its chain.

        `changes`: fields of the policy that the owner signs in place of what the rules give.
        """
        site = Site(place=str(self.maker.folder))
        root = self.maker.pinned_root
        chain = await fetch_chain(site, pinned_root=root, version=version)
        before = parse_policy(current.policy)
        verified = verify_chain(chain, pinned_root=root, seen=seen_by(before), now=self.now)
        now_s = int(self.now.timestamp())
        target = Target(
            provider="local",
            variant=Variant.LOCAL_VTPM,
            kubernetes=kubernetes or before.kubernetes_version,
            minimum_release="0.0.1",
            ends_at=now_s + 3600,
        )
        policy = next_policy(before, verified, target, now=now_s)
        policy = dataclasses.replace(policy, **changes)  # type: ignore[arg-type] # fields by name
        return OfferedPolicy(
            signed=sign_policy(policy, self.cluster.owner), chain=dump_chain(chain)
        )

    def finish(self, current: SignedPolicy, **changes: object) -> OfferedPolicy:
        """Sign the policy after a roll-out; no chain comes with it."""
        policy = finish_policy(parse_policy(current.policy))
        policy = dataclasses.replace(policy, **changes)  # type: ignore[arg-type] # fields by name
        return OfferedPolicy(signed=sign_policy(policy, self.cluster.owner))

    def judge(self, *, now: datetime | None = None, pinned_root: bytes | None = None) -> Judge:
        """Give a control plane's judge, whose image pins this maker's root."""
        return Judge(
            document=self.cluster.document,
            pinned_root=self.maker.pinned_root if pinned_root is None else pinned_root,
            now=now or self.now,
        )
