"""What is done and demanded inside the test machine, in order; each step gives facts to keep.

What only this machine can show: a cloud in a scope of the host's systemd, nodes with a delegated
tree of cgroup v2, devices refused by a BPF program, the systemd driver from containerd to kubelet,
and the mesh over the kernel's own WireGuard.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.vm.qemu import Done, Machine

CLONE = "/srv/content/clone"
WORK = "/root/cluster"
SHORT_S, LONG_S = 300.0, 3600.0


class Failed(Exception):
    """A step's demand does not hold; says expected and found."""


@dataclass(kw_only=True)
class World:
    """The machine, and what earlier steps learned."""

    machine: Machine
    before: dict[str, Any] = field(default_factory=dict)

    async def run(self, *argv: str, timeout_s: float = SHORT_S, stdin: str = "") -> Done:
        """Run a program in the machine, whatever its end."""
        return await self.machine.run(*argv, timeout_s=timeout_s, stdin=stdin.encode())

    async def shell(self, script: str, *, timeout_s: float = SHORT_S) -> str:
        """Run a script that has to end well; give its output."""
        done = await self.run("sh", "-euc", script, timeout_s=timeout_s)
        if done.code != 0:
            raise Failed(f"{script[:200]!r} ended with {done.code}: {done.text[-2000:]}")
        return done.text

    async def tool(self, *arguments: str, timeout_s: float = LONG_S) -> str:
        """Run the clone's `constellation`, printing its progress as it comes."""
        done = await self.machine.run(
            f"{CLONE}/constellation", "-C", WORK, *arguments,
            timeout_s=timeout_s, on_line=lambda line: print(f"  {line}", flush=True),
        )  # fmt: skip
        if done.code != 0:
            raise Failed(f"constellation {' '.join(arguments)} ended with {done.code}")
        return done.text

    async def nodes(self) -> dict[str, int]:
        """Give the nodes by group, with the pid of each one's init."""
        record = json.loads(await self.shell("cat /var/lib/constellation/*/state.json"))
        return {node["group"]: node["init"]["pid"] for node in record["nodes"]}

    async def in_node(self, group: str, script: str, *, timeout_s: float = SHORT_S) -> Done:
        """Run a script in a node, as one of its services: in its cgroup and namespaces."""
        pid = (await self.nodes())[group]
        words = ("systemd-run", "--wait", "--pipe", "--quiet", "--collect", "sh", "-euc", script)
        return await self.run("nsenter", "-t", str(pid), "-a", *words, timeout_s=timeout_s)

    async def demand(self, group: str, script: str, *, timeout_s: float = SHORT_S) -> str:
        """Run a script in a node that has to end well; give its output."""
        done = await self.in_node(group, script, timeout_s=timeout_s)
        if done.code != 0:
            raise Failed(
                f"in {group}: {script[:200]!r} ended with {done.code}: {done.text[-2000:]}"
            )
        return done.text


def equal(what: str, found: object, expected: object) -> None:
    """Demand a value."""
    if found != expected:
        raise Failed(f"{what}: expected {expected!r}, found {found!r}")


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
}))
"""


async def describe(world: World) -> dict[str, Any]:
    """Share the cache, and say what this machine is."""
    await world.shell(
        f"mkdir -p /root/.cache {WORK}; mountpoint -q /root/.cache || "
        "mount --bind /srv/content/cache /root/.cache"
    )
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
    equal("nodes", sorted(await world.nodes()), ["control-planes", "workers"])
    return {"scope": units}


async def node(world: World) -> dict[str, Any]:
    """A node has its own tree of cgroup v2 with the controllers, and few devices."""
    for group in await world.nodes():
        state = await world.demand(group, "systemctl is-system-running --wait || true")
        if state not in ("running", "degraded"):
            raise Failed(f"{group}: expected running, found {state}")
        equal("cgroup tree", await world.demand(group, "stat -fc %T /sys/fs/cgroup"), "cgroup2fs")
        equal("its root", await world.demand(group, "head -1 /proc/1/cgroup"), "0::/init.scope")
        have = (await world.demand(group, "cat /sys/fs/cgroup/cgroup.controllers")).split()
        equal("controllers", {"cpu", "cpuset", "memory", "pids"} - set(have), set())
        for number in ("b 254 0", "c 1 1", "b 7 200"):
            opened = await world.in_node(
                group, f"rm -f /dev/theirs; mknod /dev/theirs {number}; head -c 1 /dev/theirs"
            )
            if opened.code == 0 or "Operation not permitted" not in opened.text:
                raise Failed(f"{group} opens {number}: {opened.text}")
        await world.demand(group, "head -c 1 /dev/zero >/dev/null; echo x >/dev/null")
    return {"controllers": have}


async def init(world: World) -> dict[str, Any]:
    """The nodes are attested, their disks opened, Kubernetes runs."""
    await world.tool("init", "--yes")
    found = {}
    for group in await world.nodes():
        disk = await world.demand(group, "cat /run/constellation/disk.json")
        equal(f"disk of {group}", json.loads(disk)["state"], "open")
        config = await world.demand(group, "cat /run/constellation/containerd/config.toml")
        equal("SystemdCgroup", "SystemdCgroup = true" in config, True)
        kubelet = await world.demand(group, "grep cgroupDriver /var/lib/kubelet/config.yaml")
        equal("kubelet's driver", kubelet, "cgroupDriver: systemd")
        slices = await world.demand(
            group, "ls -d /sys/fs/cgroup/kubepods.slice/*/*/*.scope | wc -l"
        )
        found[group] = int(slices)
    if not found["control-planes"]:
        raise Failed("no pod's container is in a scope of the node's systemd")
    return {"containers_in_scopes": found}


async def pod(world: World) -> dict[str, Any]:
    """A pod of the worker runs through containerd, in a slice of the node's systemd."""
    kubectl = f"{WORK}/kubectl --kubeconfig {WORK}/constellation-admin.conf"
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "one"},
        "spec": {
            "containers": [{"name": "one", "image": "registry.k8s.io/pause:3.10.2"}],
            "tolerations": [{"operator": "Exists"}],
        },
    }
    await world.shell(f"echo {shlex.quote(json.dumps(manifest))} | {kubectl} apply -f -")
    await world.shell(f"{kubectl} wait --for=condition=Ready --timeout=600s pod/one", timeout_s=700)
    uid = await world.shell(f"{kubectl} get pod one -o jsonpath='{{.metadata.uid}}'")
    group = await world.demand(
        "workers", f"ls -d /sys/fs/cgroup/kubepods.slice/*/*{uid.replace('-', '_')}.slice"
    )
    tasks = await world.demand("workers", "/run/constellation/bin/ctr -n k8s.io tasks ls")
    address = await world.shell(f"{kubectl} get pod one -o jsonpath='{{.status.podIP}}'")
    return {"group": group, "tasks": len(tasks.splitlines()) - 1, "address": address}


async def wireguard(world: World) -> dict[str, Any]:
    """The mesh is the kernel's, and carries packets from one node to the other."""
    addresses = {}
    for group in await world.nodes():
        shown = await world.demand(group, "ip -j -d address show dev wg0")
        link = json.loads(shown)[0]
        equal("kind of wg0", link["linkinfo"]["info_kind"], "wireguard")
        none = await world.demand(group, "ls /run/wireguard /var/run/wireguard 2>/dev/null | wc -l")
        equal("sockets of wireguard-go", none, "0")
        addresses[group] = link["addr_info"][0]["local"]
    if not all(addresses.values()):
        raise Failed(f"no address: {addresses}")
    await world.demand(
        "workers",
        f"""python3 - <<'END'
import socket, time
end = time.monotonic() + 120
while True:
    try:
        socket.create_connection(("{addresses["control-planes"]}", 10250), timeout=10).close()
        break
    except OSError:
        if time.monotonic() > end:
            raise
        time.sleep(1)
END""",
    )
    seen = await world.demand("workers", "wg show wg0 transfer")
    received = int(seen.split()[1])
    if not received:
        raise Failed(f"nothing came through the mesh: {seen}")
    return {"mesh": addresses, "received_bytes": received}


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
    changed = {
        key: {"gone": [x for x in value if x not in after[key]],
              "new": [x for x in after[key] if x not in value]}
        for key, value in world.before.items() if value != after[key]
    }  # fmt: skip
    equal("what differs from before", changed, {})
    return {"compared": sorted(world.before)}


STEPS: dict[str, Callable[[World], Awaitable[dict[str, Any]]]] = {
    step.__name__: step
    for step in (describe, preflight, create, node, init, pod, wireguard, restart, down)
}
