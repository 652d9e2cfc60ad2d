"""A node that was in its cluster before: what `node.json` says is started, nobody is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.kube.membership import NodeRole
from constellation.services.bootstrapper import kubernetes, runtime
from constellation.services.steps import Step
from constellation.trust import artifact_list

if TYPE_CHECKING:
    from constellation.kube.node_record import NodeRecord
    from constellation.services.artifact_shelf import Shelf
    from constellation.services.bootstrapper.paths import Paths

__all__ = ["boot_steps"]


def boot_steps(record: NodeRecord, *, shelf: Shelf, paths: Paths) -> tuple[Step, ...]:
    """Give the steps of a later boot; all of them hold until the next one only."""
    artifacts = artifact_list.parse(record.artifact_list)

    async def check() -> None:
        await runtime.check_programs(artifacts, shelf=shelf)

    async def containerd() -> None:
        await runtime.start_containerd(artifacts, shelf=shelf)

    async def services() -> None:
        await runtime.mount_services(artifacts, shelf=shelf, paths=paths)
        if record.role is NodeRole.CONTROL_PLANE:
            await runtime.start_keyservice(paths=paths)
            await runtime.start_upgrade_agent()
        kubernetes.ensure_api_identities(record, paths=paths)
        runtime.place_static_pods(record.role, paths=paths)

    async def network() -> None:
        await runtime.configure_pod_network(record.pod_cidr, pod_network=record.pod_network)
        await runtime.start_mesh()

    async def kubelet() -> None:
        await runtime.start_unit("kubelet.service")
        await runtime.start_kube_proxy(record)

    return (
        Step(name="artifacts", do=check, volatile=True),
        Step(name="containerd", do=containerd, volatile=True),
        Step(name="services", do=services, volatile=True),
        Step(name="pod network", do=network, volatile=True),
        Step(name="kubelet", do=kubelet, volatile=True),
    )
