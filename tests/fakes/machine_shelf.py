"""What a workstation has at hand for clusters of fake machines: their image's release, their Nodes.

A release states what its maker measured: here what the machine's vTPM, and chip, will show.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.cluster.context import KubernetesNode, NodeImage
from constellation.trust.cluster_policy import AcceptedRelease
from tests.fakes.owner_world import RELEASE_ROOT, Shelf

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from constellation.base.progress import Report
    from tests.fakes.clouds import Machine

__all__ = ["MachineShelf", "one_of_each"]


@dataclass(frozen=True, kw_only=True)
class MachineShelf(Shelf):
    """`Supplies` with the release of `machine`'s image; `launch` as in `AcceptedRelease`."""

    machine: Machine
    image: str = "node-image"
    launch: dict[str, tuple[bytes, ...]] = field(default_factory=dict)

    async def node_image(self, *, report: Report) -> NodeImage:
        del report
        release = AcceptedRelease(
            name="0.1.0",
            not_before=0,
            not_after=None,
            image_digest=hashlib.sha256(b"image").digest(),
            reference=self.machine.tpm.reference(),
            launch=self.launch,
        )
        return NodeImage(path=Path(self.image), release=release, release_root=RELEASE_ROOT)


def one_of_each(address: str) -> Callable[[Path], Awaitable[tuple[KubernetesNode, ...]]]:
    """Give a `list_nodes` that finds a control plane and a worker Ready, at one address."""

    async def list_nodes(kubeconfig: Path) -> tuple[KubernetesNode, ...]:
        assert kubeconfig.exists()
        return tuple(
            KubernetesNode(
                name=f"{role}-0",
                role=role,
                ready=True,
                version="v1.36.2",
                address=address,
                reason="",
            )
            for role in ("control-plane", "worker")
        )

    return list_nodes
