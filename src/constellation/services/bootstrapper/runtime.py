"""What runs on every node until its next boot: checked programs, containerd, network, services.

Every function may be called again; all of it vanishes with the boot (mounts, /run, units).
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base.errors import FormatError, Unavailable
from constellation.base.files import write_atomic
from constellation.base.proc import run
from constellation.base.retry import until_available
from constellation.kube import cni, containerd, pod_gate, units
from constellation.kube.membership import NodeRole
from constellation.services import artifacts
from constellation.services.node_tools import environment
from constellation.trust.artifact_list import ArtifactKind

if TYPE_CHECKING:
    from constellation.kube.node_record import NodeRecord
    from constellation.services.artifact_shelf import Shelf
    from constellation.services.bootstrapper.paths import Paths
    from constellation.trust.artifact_list import ArtifactList

__all__ = [
    "RESOLV_CONF",
    "cgroup_version",
    "check_programs",
    "configure_pod_network",
    "ensure_kubelet",
    "mount_services",
    "place_static_pods",
    "start_containerd",
    "start_keyservice",
    "start_kube_proxy",
    "start_mesh",
    "start_unit",
    "start_upgrade_agent",
]

RESOLV_CONF = Path("/etc/resolv.conf")
"""Part of the image: the cloud's own resolver."""
_REGISTRY = "http://169.254.169.254:5000"
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_SHORT_S = 30.0
_CONTAINERD_S = 240.0
_MAX_GIFT_BYTES = 256 * 1024


def cgroup_version() -> int:
    """Say which cgroup tree this node has: 1 or 2."""
    return 2 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else 1


async def check_programs(list_: ArtifactList, *, shelf: Shelf) -> None:
    """Have all artifacts, checked, then link the programs. Raises as `Shelf.have` does."""
    await shelf.have(artifacts.used_by_nodes(list_))
    artifacts.link_programs(list_, store=shelf.store, programs=units.BIN_DIR, plugins=cni.BIN_DIR)
    for name, text in units.units().items():
        write_atomic(units.UNIT_DIR / name, text)
    await run("systemctl", "daemon-reload", timeout_s=_SHORT_S)


async def start_containerd(list_: ArtifactList, *, shelf: Shelf) -> None:
    """Bind the content, configure and start containerd, wait until it answers."""
    (content,) = list_.of_kind(ArtifactKind.CONTENT)
    await _bind_content(await shelf.mounted(content))
    systemd = cgroup_version() == 2  # noqa: PLR2004 - a version
    config = containerd.configuration(
        systemd_cgroups=systemd, cni_bin=str(cni.BIN_DIR), cni_config=str(cni.CONFIG_DIR)
    )
    write_atomic(containerd.CONFIG, config)
    write_atomic(containerd.HOSTS / "_default" / "hosts.toml", containerd.hosts(_REGISTRY))
    # its configuration stays the same until the next boot. A repeated step must not end it under a
    # kubelet: the node would not be Ready for a while, and pods that are being made begin anew
    await _ensure_unit("containerd.service")

    async def answers() -> None:
        await run(units.BIN_DIR / "ctr", "version", timeout_s=5, env=environment())

    await until_available(answers, deadline_s=_CONTAINERD_S)


async def configure_pod_network(pod_cidr: str, *, pod_network: str) -> None:
    """Close the node for pods until the mesh runs, then configure CNI: then there can be pods.

    Raises:
        Unavailable: the packet filter was not loaded.
    """
    # a repeated step must not take the mesh's rules away from pods that run
    shown = await run("nft", "list", "table", *pod_gate.TABLE, timeout_s=_SHORT_S, check=False)
    if shown.returncode != 0:
        gate = pod_gate.closed(pod_network)
        await run("nft", "-f", "-", stdin=gate.encode(), timeout_s=_SHORT_S)
    with contextlib.suppress(OSError):
        await asyncio.to_thread(_FORWARDING.write_text, "1")
    write_atomic(
        cni.CONFIG_DIR / "10-constellation.conflist",
        cni.configuration(pod_cidr=pod_cidr, mtu=cni.MTU),
    )


async def start_mesh() -> None:
    """Start the mesh, which reads `node.json`, `peers.json` and its key from the state disk."""
    await start_unit("constellation-mesh.service")


async def start_kube_proxy(record: NodeRecord) -> None:
    """Configure and start kube-proxy."""
    text = units.kube_proxy_configuration(
        node_name=record.name, address=record.address, pod_network=record.pod_network
    )
    write_atomic(Path("/run/constellation/kube-proxy.json"), text)
    await start_unit("kube-proxy.service")


async def mount_services(list_: ArtifactList, *, shelf: Shelf, paths: Paths) -> None:
    """Mount the services bundle. Raises Unavailable."""
    bundles = list_.of_kind(ArtifactKind.ARCHIVE)
    if not bundles:
        raise Unavailable("the artifact list has no services bundle")
    paths.services.mkdir(parents=True, exist_ok=True)
    if not _bound(paths.services):
        source = await shelf.mounted(bundles[0])
        await run("mount", "--bind", source, paths.services, timeout_s=_SHORT_S)


async def start_keyservice(*, paths: Paths) -> None:
    """Start KeyService from the mounted bundle, and wait until its KMS socket is there."""
    await start_unit("constellation-keyservice.service")

    async def answers() -> None:
        if not (paths.run / "kms" / "kms.sock").is_socket():
            raise Unavailable("KeyService has not made its socket yet")

    await until_available(answers, deadline_s=_CONTAINERD_S)


def place_static_pods(role: NodeRole, *, paths: Paths) -> None:
    """Give kubelet the bundle's static pods: `manifests/all`, and those of this node's role."""
    if role is NodeRole.CONTROL_PLANE:
        _place_gifts(paths)
    for folder in ("all", str(role)):
        for manifest in sorted((paths.services / "manifests" / folder).glob("*.json")):
            target = paths.manifests / manifest.name
            data = manifest.read_bytes()
            if not target.exists() or target.read_bytes() != data:
                write_atomic(target, data, mode=0o600)


def _place_gifts(paths: Paths) -> None:
    """Have what the operator's pod mounts of a machine's gifts, which not every provider gives.

    They are copied: what is given is read-only where it lies on an owner's medium. The token of
    scaling groups, another one at each power-on, is the local cloud's alone: elsewhere the file is
    empty. The list of hosts is the owner's, on baremetal alone.
    """
    token, hosts = paths.host / "instance-token", paths.host / "hosts.json"
    given = _gift(token) if token.exists() else b""
    paths.gifts.mkdir(parents=True, exist_ok=True)
    write_atomic(paths.gifts / token.name, given, mode=0o400)
    if hosts.exists():
        paths.access.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomic(paths.access.parent / hosts.name, _gift(hosts), mode=0o600)


def _gift(path: Path) -> bytes:
    # a medium is whoever's who runs the host: it fills neither memory nor state disk
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_GIFT_BYTES + 1)
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error
    if len(data) > _MAX_GIFT_BYTES:
        raise FormatError(f"{path}: more than {_MAX_GIFT_BYTES} bytes")
    return data


async def start_upgrade_agent() -> None:
    """Start the upgrade agent of a control plane; the operator's pod waits for its folder."""
    await start_unit("constellation-upgradeagent.service")


async def ensure_kubelet() -> None:
    """Start kubelet if it does not run: kubeadm started it, but not in this boot."""
    await _ensure_unit("kubelet.service")


async def start_unit(name: str) -> None:
    """Start a unit, or restart it if it runs. Raises Unavailable with systemctl's words."""
    await run("systemctl", "restart", name, timeout_s=_CONTAINERD_S, env=environment())


async def _ensure_unit(name: str) -> None:
    """Start a unit unless it runs. Raises Unavailable with systemctl's words."""
    await run("systemctl", "start", name, timeout_s=_CONTAINERD_S, env=environment())


async def _bind_content(content: Path) -> None:
    snapshots, blobs = content / containerd.SNAPSHOTS, content / containerd.BLOBS
    plan = containerd.content_plan(
        (p.name for p in snapshots.iterdir()), (p.name for p in blobs.iterdir())
    )
    for name in plan.copy:
        target = containerd.ROOT / name
        if not target.exists():
            # to the disk: an empty file after a power cut would count as there
            data = await asyncio.to_thread((content / name).read_bytes)
            await asyncio.to_thread(write_atomic, target, data, mode=0o600)
    for name in plan.bind:
        source, target = content / name, containerd.ROOT / name
        if _bound(target):
            # a repeated step: what is bound is read-only, even its time
            continue
        if source.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        await run("mount", "--bind", source, target, timeout_s=_SHORT_S)


def _bound(target: Path) -> bool:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split(" ")[4] == str(target) for line in lines)
