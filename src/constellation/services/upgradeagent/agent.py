"""What the upgrade agent does on its node, one thing at a time; `upgrade_steps` is the one list.

Every operation may be repeated: killed in the middle, the next call finishes it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Protocol

from constellation.base.errors import Conflict, ConstellationError, Unavailable
from constellation.base.file_server import lookup
from constellation.base.files import write_atomic
from constellation.base.proc import run
from constellation.base.retry import until_available
from constellation.kube import api_server, containerd, kubeadm, units
from constellation.kube.objects import first_objects
from constellation.services import node_tools
from constellation.services.cloud_components import apply_components
from constellation.services.steps import Step, StepBook, run_steps
from constellation.services.upgradeagent import manifests
from constellation.services.upgradeagent.judge import (
    Target,
    judge_components,
    judge_list,
    judge_target,
    judge_version,
    needed,
)
from constellation.trust.artifact_list import ArtifactKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path
    from typing import BinaryIO

    from constellation.base.file_server import Lookup
    from constellation.kube.node_record import NodeRecord
    from constellation.services.artifact_shelf import Shelf
    from constellation.services.upgradeagent.paths import Paths
    from constellation.trust.artifact_list import Artifact, ArtifactList
    from constellation.trust.cluster_policy import ClusterPolicy

__all__ = ["Agent", "Policies", "Snapshots"]

_log = logging.getLogger(__name__)
_KUBEADM_S = 600.0
_IMPORT_S = 120.0
_CALL_S = 5.0
_READY_S = 240.0
_GONE_S = 150.0
"""For so long an ended API server may take: its grace (90 s), and kubelet's look at its folder."""
_KEPT_SNAPSHOTS = 2


class Policies(Protocol):
    """The signed policy on this node's disk (`services.kept_policy.KeptPolicy`)."""

    def verified(self) -> ClusterPolicy:
        """Give it, signed by this cluster's owner. Raises Untrusted, Unavailable."""
        ...

    def artifact_list(self, version: str) -> bytes:
        """Give the list of a Kubernetes version as it was signed for. Raises Unavailable."""
        ...


class Snapshots(Protocol):
    """etcd, as far as the agent needs it (`kube.etcd.Etcd`)."""

    async def snapshot(self, target: BinaryIO) -> None:
        """Write a snapshot. Raises Unavailable, FormatError."""
        ...


class Agent:
    """The upgrade agent of one control plane.

    `settle` waits until a folder's disk has it all; `ask` gives addresses of file servers.
    """

    def __init__(
        self,
        *,
        record: NodeRecord,
        policies: Policies,
        etcd: Snapshots,
        paths: Paths,
        settle: Callable[[Path], Awaitable[None]] = node_tools.settle,
        api_port: int = kubeadm.API_PORT,
        ask: Lookup = lookup,
    ) -> None:
        self._record, self._policies, self._etcd, self._paths = record, policies, etcd, paths
        self._settle, self._api_port, self._ask = settle, api_port, ask
        self._turn = asyncio.Lock()
        self._known: tuple[bytes, Artifact] | None = None  # of the list with this digest

    @property
    def node(self) -> str:
        """This node's name."""
        return self._record.name

    def mend(self) -> None:
        """Put back what the end of an earlier run left out of the static pods; at each start.

        An operator could not order it where this is the only API server.
        """
        if manifests.is_retired(self._paths):
            return
        try:
            manifests.make_whole(self._paths)
        except Unavailable as error:
            _log.warning("the static pods are not whole", extra={"reason": str(error)})

    def describe(self) -> tuple[ClusterPolicy, str]:
        """Give the kept policy, and the version of this node's API server (empty: retired)."""
        return self._policies.verified(), manifests.api_server_version(self._paths)

    def components(self) -> str | None:
        """Give the SHA-256 of the objects of the cloud's components that the policy wants.

        Empty where the owner wants none; None where the list that names them is not here.
        """
        try:
            artifact = self._components(self._policies.verified())
        except ConstellationError as error:
            _log.warning("the cloud's components are not known", extra={"reason": str(error)})
            return None
        return "" if artifact is None else artifact.sha256

    def has_snapshot(self, serial: int) -> bool:
        """Say whether a snapshot was taken here for that policy."""
        return self._paths.snapshot(serial).exists()

    async def snapshot(self, target: Target) -> None:
        """Keep an etcd snapshot for this policy, 0600 on the encrypted disk; the last two stay."""
        async with self._turn:
            judge_target(target, policy=self._policies.verified())
            self._make_folder()
            final = self._paths.snapshot(target.policy_serial)
            if final.exists():
                return
            part = final.with_suffix(".part")
            part.unlink(missing_ok=True)
            with os.fdopen(
                os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb"
            ) as file:
                await self._etcd.snapshot(file)
                file.flush()
                await asyncio.to_thread(os.fsync, file.fileno())
            part.replace(final)
            self._forget_old_snapshots()

    async def upgrade(self, target: Target) -> None:
        """Bring this node's static pods to the version. Raises ConstellationError."""
        async with self._turn:
            policy = self._policies.verified()
            judge_target(target, policy=policy)
            listed = judge_list(
                self._policies.artifact_list(target.kubernetes), target=target, policy=policy
            )
            if manifests.is_retired(self._paths):
                raise Conflict("the API server of this node was ended for good")
            manifests.make_whole(self._paths)
            judge_version(manifests.api_server_version(self._paths), target=target)
            self._make_folder()
            book = StepBook(
                self._paths.steps(target.policy_serial), kind=f"upgrade to {target.kubernetes}"
            )
            steps = self._upgrade_steps(target, listed, self._shelf(policy))
            await run_steps(steps, book=book, notify=_silently)

    async def core_dns(self, target: Target) -> None:
        """Apply the manifest of CoreDNS, and what else a cluster of this version starts with."""
        async with self._turn:
            judge_target(target, policy=self._policies.verified())
            await node_tools.apply_objects(
                first_objects(service_cidr=self._record.service_cidr, kubernetes=target.kubernetes),
                kubeconfig=self._paths.admin,
            )

    async def cloud_objects(self, target: Target) -> None:
        """Bring the cluster to the components of its cloud that the policy wants, or to none."""
        async with self._turn:
            policy = self._policies.verified()
            judge_target(target, policy=policy)
            await apply_components(
                self._components(policy),
                provider=self._record.provider,
                shelf=self._shelf(policy),
                kubeconfig=self._paths.admin,
            )

    async def rbac(self, target: Target) -> None:
        """Let the version's kubeadm make its RBAC, then delete what lets token holders join."""
        async with self._turn:
            policy = self._policies.verified()
            judge_target(target, policy=policy)
            listed = judge_list(
                self._policies.artifact_list(target.kubernetes), target=target, policy=policy
            )
            shelf = self._shelf(policy)
            await shelf.have((listed.get("kubeadm"),))
            await self._kubeadm(
                listed, target, shelf, "upgrade", "apply", "phase", "bootstrap-token"
            )
            await node_tools.forget_bootstrap_tokens(kubeconfig=self._paths.admin)

    async def retire(self) -> None:
        """End scheduler, controller manager and API server, in this order, and wait for the end.

        Raises:
            Unavailable: the API server still answers after its grace.
        """
        async with self._turn:
            for component in manifests.COMPONENTS:
                manifests.retire(self._paths, component)

            async def gone() -> None:
                try:
                    await api_server.ask(
                        self._record.address,
                        "/livez",
                        ca_file=self._paths.pki / "ca.crt",
                        timeout_s=_CALL_S,
                        port=self._api_port,
                    )
                except Unavailable:
                    return
                raise Unavailable("the API server of this node still answers")

            await until_available(gone, deadline_s=_GONE_S, longest_pause_s=0.5)

    def _components(self, policy: ClusterPolicy) -> Artifact | None:
        """Find the objects in the list that was signed for; a list is read once."""
        if not policy.cloud_integration:
            return None
        version = policy.kubernetes_version
        digest = policy.artifact_lists[version]
        if self._known is None or self._known[0] != digest:
            target = Target(policy_serial=policy.serial, kubernetes=version)
            data = self._policies.artifact_list(version)
            listed = judge_list(data, target=target, policy=policy)
            self._known = digest, judge_components(listed, provider=self._record.provider)
        return self._known[1]

    def _shelf(self, policy: ClusterPolicy) -> Shelf:
        """Give this node's artifacts, from where the owner's policy says."""
        return self._paths.shelf(self._record, policy.artifact_sources, ask=self._ask)

    def _upgrade_steps(
        self, target: Target, listed: ArtifactList, shelf: Shelf
    ) -> tuple[Step, ...]:
        async def check() -> None:
            await shelf.have(needed(listed))

        async def images() -> None:
            await self._import(listed, shelf)
            await self._settle(containerd.ROOT)

        async def pods() -> None:
            # the owner may have turned back while the images came
            judge_target(target, policy=self._policies.verified())
            # volatile, so that the manifests are looked at again: kubeadm ends at once if they are
            # the version's already
            await self._kubeadm(listed, target, shelf, "upgrade", "node", "phase", "control-plane")
            await self._settle(self._paths.manifests)

        async def answers() -> None:
            await until_available(
                lambda: self._answers(target.kubernetes), deadline_s=_READY_S, longest_pause_s=0.5
            )

        return (
            Step(name="artifacts", do=check, volatile=True),
            Step(name="images", do=images),
            Step(name="static pods", do=pods, volatile=True),
            Step(name="API server", do=answers, volatile=True),
        )

    async def _import(self, listed: ArtifactList, shelf: Shelf) -> None:
        """Give containerd the images that it does not have, pinned against garbage collection."""
        ctr = (units.BIN_DIR / "ctr", "-n", "k8s.io", "images")
        shown = await run(*ctr, "ls", "-q", timeout_s=_IMPORT_S, env=node_tools.environment())
        present = set(shown.stdout.decode(errors="replace").split())
        for image in listed.of_kind(ArtifactKind.IMAGE):
            if image.name not in present:
                await run(
                    *(*ctr, "import", shelf.store / "sha256" / image.sha256),
                    timeout_s=_IMPORT_S,
                    env=node_tools.environment(),
                )
            # also one that was there: a run may have ended between the two
            await run(
                *(*ctr, "label", image.name, "io.cri-containerd.pinned=pinned"),
                timeout_s=_IMPORT_S,
                env=node_tools.environment(),
            )

    async def _kubeadm(
        self, listed: ArtifactList, target: Target, shelf: Shelf, *words: str
    ) -> None:
        program = listed.get("kubeadm")
        link = self._paths.run / "kubeadm"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(shelf.store / "sha256" / program.sha256)
        config = self._paths.run / "kubeadm-upgrade.json"
        etcd = manifests.etcd_tag(self._paths)
        write_atomic(
            config,
            kubeadm.upgrade_configuration(
                target.kubernetes, etcd_upgrade=etcd not in ("", kubeadm.ETCD_IMAGE_TAG)
            ),
            mode=0o600,
        )
        await node_tools.kubeadm(
            link, *words, "--config", config, "--kubeconfig", self._paths.admin,
            timeout_s=_KUBEADM_S,
        )  # fmt: skip

    async def _answers(self, wanted: str) -> None:
        ca, address = self._paths.pki / "ca.crt", self._record.address
        port = self._api_port
        found = await api_server.version(address, ca_file=ca, timeout_s=_CALL_S, port=port)
        if found != wanted:
            raise Unavailable(f"API server of this node: found {found}, expected {wanted}")
        await api_server.ready(address, ca_file=ca, timeout_s=_CALL_S, port=port)

    def _make_folder(self) -> None:
        self._paths.upgrade.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _forget_old_snapshots(self) -> None:
        kept = sorted(self._paths.upgrade.glob("etcd-*.db"), key=_serial_of)
        for old in kept[:-_KEPT_SNAPSHOTS]:
            old.unlink(missing_ok=True)


def _serial_of(snapshot: Path) -> int:
    digits = snapshot.stem.removeprefix("etcd-")
    return int(digits) if digits.isdecimal() else 0


async def _silently(_name: str, _done: bool) -> None:
    return
