"""What is done and demanded inside the test machine, in order; each step gives facts to keep.

What only this machine can show: a cloud in a scope of the host's systemd, nodes with a delegated
tree of cgroup v2, devices refused by a BPF program, the systemd driver from containerd to kubelet,
and the mesh over the kernel's own WireGuard.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from constellation.kube.kubeadm import PAUSE_IMAGE
from constellation.services.mesh.firewall import Place
from tests.vm.world import BOOT_S, CLONE, LONG_S, WORK, Failed, World, equal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HERE = Path(__file__).resolve().parent
INIT_S = 420.0  # of `start`: enough until containerd runs; `cluster` goes on from there
WITHIN_S = {"start": INIT_S + BOOT_S, "cluster": LONG_S}
"""What a step may take in all; the others `BOOT_S`."""

_LOOK = """
import glob, json, os, re, socket, subprocess
def said(*argv):
    return subprocess.run(argv, capture_output=True, text=True).stdout.splitlines()
def values(lines, omit):
    return sorted(line for line in lines if not re.search(omit, line))
print(json.dumps({
    "cgroups": sorted(p for p in glob.glob("/sys/fs/cgroup/**/*constellation*", recursive=True)
                      if os.path.isdir(p) and "constellation-test" not in p),
    "firewall": said("nft", "list", "ruleset"),
    "folders": sorted(glob.glob("/run/constellation*") + glob.glob("/var/lib/constellation*")
                      + glob.glob("/run/netns*") + glob.glob("/run/systemd/nspawn*")),
    "links": sorted(name for _, name in socket.if_nameindex()),
    "loops": said("losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"),
    "mounts": sorted(line.split(" ")[4] for line in open("/proc/self/mountinfo")),
    "programs": [line for line in said("ps", "-eo", "args") if "/constellation/" in line
                 and "test-vm" not in line],
    # counters, random values and what the kernel adapts by itself
    "sysctls": values(said("sysctl", "--all"), r"^(dev\\.cdrom|fs\\.(dentry|file-nr|inode|quota)|"
                      r"kernel\\.(random|ns_last_pid|pty\\.nr|keys)|net\\..*\\.(stable_secret|tcp_mem)"
                      r"|net\\.netfilter|net\\.ipv4\\.(tcp_mem|udp_mem)|user\\.)"),
    "units": said("systemctl", "list-units", "--all", "--plain", "--no-legend", "constellation-*"),
}, indent=1))
"""


async def describe(world: World) -> dict[str, Any]:
    """Share the cache, and say what this machine is."""
    await world.shell(
        f"mkdir -p /root/.cache {WORK}; mountpoint -q /root/.cache || "
        "mount --bind /srv/content/cache /root/.cache"
    )
    # longer turns, for the same reason as highres=off (tests/vm/qemu.py)
    await world.shell("echo 20000000 > /sys/kernel/debug/sched/base_slice_ns")
    equal("pid 1", await world.shell("cat /proc/1/comm"), "systemd")
    equal("cgroup tree", await world.shell("stat -fc %T /sys/fs/cgroup"), "cgroup2fs")
    return {
        "system": await world.shell(". /etc/os-release; echo $PRETTY_NAME"),
        "kernel": await world.shell("uname -r"),
        "systemd": (await world.shell("systemctl --version")).splitlines()[0],
        "python": await world.shell("python3 --version"),
    }


async def preflight(world: World) -> dict[str, Any]:
    """The machine has everything: modules are loaded by being used."""
    python = await world.shell("ls -d /root/.cache/constellation/env/*/bin/python")
    said = await world.shell(
        f"PYTHONPATH={CLONE}/src {python} -m constellation.providers.local.daemon.main --preflight"
    )
    checks = json.loads(said)
    equal("preflight", [c for c in checks["checks"] if c["problem"]], [])
    world.before = json.loads(await world.shell(f"python3 -c {shlex.quote(_LOOK)}"))
    return {"checks": len(checks["checks"])}


async def create(world: World) -> dict[str, Any]:
    """One control plane and one worker boot, in a daemon that systemd knows as a scope."""
    await world.tool("config", "generate", "local")
    await world.tool("create", "--yes")
    units = await world.shell(
        "systemctl list-units --plain --no-legend 'constellation-*.scope' | cut -d' ' -f1"
    )
    equal("scopes", len(units.split()), 1)
    shown = await world.shell(f"systemctl show -p Delegate -p ActiveState -p Slice {units}")
    equal(
        "scope", sorted(shown.split()), ["ActiveState=active", "Delegate=yes", "Slice=system.slice"]
    )
    equal("nodes", sorted(await world.nodes()), ["control-plane", "worker"])
    return {"scope": units}


async def node(world: World) -> dict[str, Any]:
    """A node has its own tree of cgroup v2 with the controllers, and few devices."""
    for role in await world.nodes():
        equal(f"state of {role}", await world.booted(role), "running")
        equal("cgroup tree", await world.demand(role, "stat -fc %T /sys/fs/cgroup"), "cgroup2fs")
        equal("its root", await world.demand(role, "head -1 /proc/1/cgroup"), "0::/init.scope")
        have = (await world.demand(role, "cat /sys/fs/cgroup/cgroup.controllers")).split()
        equal("controllers", {"cpu", "cpuset", "memory", "pids"} - set(have), set())
        for number in ("b 254 0", "c 1 1", "b 7 200"):
            opened = await world.in_node(
                role, f"rm -f /dev/theirs; mknod /dev/theirs {number}; head -c 1 /dev/theirs"
            )
            if opened.code == 0 or "Operation not permitted" not in opened.text:
                raise Failed(f"{role} opens {number}: {opened.text}")
        await world.demand(role, "head -c 1 /dev/zero >/dev/null; echo x >/dev/null")
    return {"controllers": have}


async def wireguard(world: World) -> dict[str, Any]:
    """Between the two nodes the mesh program's own code makes the kernel's WireGuard, and a ping.

    Before there is a cluster, so that it needs no API server; all of it is taken away again.
    """
    record = json.loads(await world.shell("cat /var/lib/constellation/*/state.json"))
    nodes = {node["role"]: node["address"] for node in record["nodes"]}
    keys = {role: X25519PrivateKey.generate() for role in nodes}
    places = {
        role: Place(
            address=address,
            mesh_address=f"10.43.9.{number}",
            pod_cidr=f"10.244.{number}.0/24",
            pod_network="10.244.0.0/16",
            mesh_cidr="10.43.0.0/16",
        )
        for number, (role, address) in enumerate(nodes.items(), 1)
    }
    found = {}
    probe = (HERE / "mesh_probe.py").read_text()
    for role, other in (("worker", "control-plane"), ("control-plane", "worker")):
        there = places[other]
        order = {
            "place": asdict(places[role]),
            "key": keys[role].private_bytes_raw().hex(),
            "peer_key": keys[other].public_key().public_bytes_raw().hex(),
            "peer": {
                "node_name": other, "address": there.address, "pod_cidr": there.pod_cidr,
                "mesh_address": there.mesh_address, "role": other,
            },
            "ping": role == "control-plane",  # the second: then both ends are there
        }  # fmt: skip
        script = probe.replace("\nORDER: dict", f"\nORDER = {order!r}\nORDER: dict")
        said = await world.demand(role, "exec python3 -ISB -", stdin=script)
        found[role] = json.loads(said.splitlines()[-1])
        equal(f"wg0 of {role}", (found[role]["kernel"], found[role]["kind"]), (True, "wireguard"))
    if not found["control-plane"]["received_bytes"]:
        raise Failed("the ping did not come through wg0")
    for role in nodes:
        await world.demand(role, "ip link delete wg0; nft delete table inet constellation")
    return found


async def start(world: World) -> dict[str, Any]:
    """The first node is attested, its disk opened, its artifacts checked, containerd runs.

    How far `init` comes in one go on an emulated processor is its own affair: see `cluster`.
    """
    code, text = await world.attempt("init", "--yes", timeout_s=INIT_S)
    if "the node is attested" not in text:
        raise Failed(f"init ended with {code} before the node was attested: {text[-1000:]}")
    disk = json.loads(await world.demand("control-plane", "cat /run/constellation/disk.json"))
    equal("disk", disk["state"], "open")
    mounts = await world.demand("control-plane", "findmnt -no FSTYPE /var/lib/containerd")
    equal("file system of containerd", mounts, "ext4")
    await world.demand(
        "control-plane",
        "for i in $(seq 60); do "
        "/run/constellation/bin/ctr version >/dev/null && exit; sleep 5; done; exit 1",
        timeout_s=BOOT_S,
    )
    config = await world.demand("control-plane", "cat /run/constellation/containerd/config.toml")
    equal("SystemdCgroup", "SystemdCgroup = true" in config, True)
    return {"code": code, "disk": disk["state"]}


_CONTAINER = """
ctr="/run/constellation/bin/ctr -n k8s.io"
$ctr run --detach --runc-systemd-cgroup --cgroup system.slice:ctr:one IMAGE one >&2
$ctr tasks ls | grep ^one >&2
cat /proc/$($ctr tasks ls | sed -n 's/^one *\\([0-9]*\\) .*/\\1/p')/cgroup
$ctr tasks kill -s KILL one >&2
sleep 2
$ctr tasks rm one >&2 || true
$ctr containers rm one >&2
"""


async def container(world: World) -> dict[str, Any]:
    """A pod's image runs through containerd and runc, in a scope that the node's systemd made."""
    script = _CONTAINER.replace("IMAGE", PAUSE_IMAGE)
    said = await world.demand("control-plane", script, timeout_s=BOOT_S)
    groups = [line for line in said.splitlines() if line.startswith("0::")]
    equal("its group", groups, ["0::/system.slice/ctr-one.scope"])
    return {"group": groups[0]}


async def cluster(world: World) -> dict[str, Any]:
    """Kubernetes comes up: both nodes Ready, kubelet and containerd of one mind, a pod runs.

    A wait of init's may end before an emulated API server is up; the same command again goes on.
    """
    attempts = await world.until_done("init", "--yes")
    kubectl = f"{WORK}/kubectl --kubeconfig {WORK}/constellation-admin.conf"
    found = {}
    for role in await world.nodes():
        kubelet = await world.demand(role, "grep cgroupDriver /var/lib/kubelet/config.yaml")
        equal("kubelet's driver", kubelet, "cgroupDriver: systemd")
        scopes = await world.demand(
            role, "find /sys/fs/cgroup/kubepods.slice -name 'cri-containerd-*.scope' | wc -l"
        )
        found[role] = int(scopes)
        kind = json.loads(await world.demand(role, "ip -j -d link show wg0"))
        equal("kind of wg0", kind[0]["linkinfo"]["info_kind"], "wireguard")
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "one"},
        "spec": {"containers": [{"name": "one", "image": PAUSE_IMAGE}]},
    }
    await world.shell(f"echo {shlex.quote(json.dumps(manifest))} | {kubectl} apply -f -")
    await world.shell(
        f"{kubectl} wait --for=condition=Ready --timeout=600s pod/one", timeout_s=BOOT_S
    )
    return {"attempts": attempts, "containers_in_scopes": found}


async def restart(world: World) -> dict[str, Any]:
    """A daemon that was killed is replaced in the same scope; the nodes never notice."""
    before = await world.nodes()
    await world.shell(
        "kill -KILL $(cat /sys/fs/cgroup/system.slice/constellation-*.scope/*/daemon/cgroup.procs)"
    )
    await world.tool("create", "--yes")
    equal("nodes", await world.nodes(), before)
    procs = await world.shell(
        "cat /sys/fs/cgroup/system.slice/constellation-*.scope/*/daemon/cgroup.procs"
    )
    equal("daemons in the scope", len(procs.split()), 1)
    return {"nodes": len(before)}


async def down(world: World) -> dict[str, Any]:
    """`mini down` leaves the machine as it was before: also its sysctls."""
    await world.tool("mini", "down", "--yes")
    await world.shell("udevadm settle; sleep 5")
    after = json.loads(await world.shell(f"python3 -c {shlex.quote(_LOOK)}"))
    # modules that were loaded meanwhile bring settings of their own; the others keep their values
    known = {line.partition(" = ")[0] for line in world.before["sysctls"]}
    after["sysctls"] = [x for x in after["sysctls"] if x.partition(" = ")[0] in known]
    changed = {
        key: {"gone": [x for x in value if x not in after[key]],
              "new": [x for x in after[key] if x not in value]}
        for key, value in world.before.items() if value != after[key]
    }  # fmt: skip
    equal("what differs from before", changed, {})
    return {"compared": sorted(world.before)}


STEPS: dict[str, Callable[[World], Awaitable[dict[str, Any]]]] = {
    step.__name__: step
    for step in (
        *(describe, preflight, create, node, wireguard, start, container, cluster, restart, down),
    )
}
MAY_FAIL = frozenset({"cluster"})
"""What an emulated processor may be too slow for: kept as it went, and the rest goes on."""
