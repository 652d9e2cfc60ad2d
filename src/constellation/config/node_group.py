"""What may a group of machines be: its size, its machines' kind, and whether a variant has them?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from constellation.config.section import Section
from constellation.providers.protocols import Role

if TYPE_CHECKING:
    from constellation.providers.catalogue import Offer

__all__ = ["Autoscaling", "NodeGroup", "check_group"]

_MOST_NODES = 50


class Autoscaling(Section):
    """Between which sizes a cluster-autoscaler may move a group of workers."""

    min: Annotated[int, Field(ge=1, le=_MOST_NODES)]
    """The least: 1 or more, since an empty group shows nobody what its nodes are like."""

    max: Annotated[int, Field(ge=1, le=_MOST_NODES)]
    """The most. So many places stand in the cluster policy, which your owner key signs."""


class NodeGroup(Section):
    """Machines of one role that are made and replaced together."""

    role: Annotated[Role, Field(strict=False)]
    """What its nodes do: "control-plane" or "worker"."""

    size: Annotated[int, Field(ge=0, le=_MOST_NODES)]
    """How many machines."""

    instance_type: Annotated[str, Field(pattern=r"^[\w.-]{1,64}$")] | None = None
    """Machine type; without it, the provider's default for the variant. Clouds only."""

    zones: (
        Annotated[
            tuple[Annotated[str, Field(pattern=r"^[\w-]{1,64}$")], ...],
            Field(strict=False, min_length=1, max_length=6),
        ]
        | None
    ) = None
    """Zones of this group; without it, the provider's. Clouds only."""

    state_disk_gb: Annotated[
        Annotated[int, Field(ge=10, le=16000)] | None, Field(alias="stateDiskGB")
    ] = None
    """Size of each node's state disk in GiB, 30 without it. Clouds only."""

    state_disk_type: Annotated[str, Field(pattern=r"^[\w-]{1,64}$")] | None = None
    """Type of the state disk; without it, the provider's default. Clouds only."""

    autoscaling: Autoscaling | None = None
    """Bounds within which a cluster-autoscaler gives the group its size, from `init` on (later ones
    from `constellation scale` on); without them nobody but you does."""

    @model_validator(mode="after")
    def _within(self) -> NodeGroup:
        bounds = self.autoscaling
        if bounds is None:
            return self
        if self.role is not Role.WORKER:
            raise ValueError("expected autoscaling of workers only, found it of control planes")
        if not bounds.min <= self.size <= bounds.max:
            raise ValueError(
                f"expected autoscaling's min ({bounds.min}) <= size ({self.size}) <= max "
                f"({bounds.max})"
            )
        return self

    @property
    def least(self) -> int:
        """Give how many nodes there are at least, once all is as it should be."""
        return self.size if self.autoscaling is None else self.autoscaling.min

    @property
    def most(self) -> int:
        """Give how many nodes there may be: the group's slots."""
        return self.size if self.autoscaling is None else self.autoscaling.max


def check_group(name: str, group: NodeGroup, offer: Offer, *, closed: bool) -> None:
    """Demand machine and disk types that the variant has.

    `closed`: the lists are complete, so that what is not in them does not exist.

    Raises:
        ValueError: with what was expected and found.
    """
    wanted = {
        "instanceType": group.instance_type,
        "stateDiskType": group.state_disk_type,
        "zones": group.zones,
        "stateDiskGB": group.state_disk_gb,
    }
    if not offer.machines:
        for key, value in wanted.items():
            if value is not None:
                raise ValueError(f"{name}: expected no {key}: these machines are what they are")
        return
    if not closed:
        return
    if group.instance_type is not None and offer.machine(group.instance_type) is None:
        some = ", ".join(m.name for m in offer.machines[:3])
        raise ValueError(
            f"{name}: expected an instanceType of {offer.variant} ({some}, …: `constellation "
            f"config instance-types`), found {group.instance_type}"
        )
    if group.state_disk_type is not None and group.state_disk_type not in offer.disk_types:
        raise ValueError(
            f"{name}: expected a stateDiskType of {', '.join(offer.disk_types)}, "
            f"found {group.state_disk_type}"
        )
