"""OpenStack's own components without nodes: their programs, a real Keystone and a real API server.

    make drill-openstack-programs

The quick sibling of `cloud_openstack`: no cluster of the local cloud, so no kubelet, pod or disk.
In a network namespace: etcd, kube-apiserver with RBAC, the release's roles, two Nodes made by
hand, Keystone, and our fake of the rest. The controller manager runs with the arguments of the
release's objects, started by `cloud-follow`, and speaks to the API as its own service account;
Cinder's controller is asked as its sidecars ask it. Results in bench/results.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.encoding.base import CodecBase

from constellation.config.schema import DEFAULT_KUBERNETES_VERSION
from constellation.config.workspace import cache_folder
from constellation.providers.openstack.component_files import component_files
from constellation.releases import lock as locks
from constellation.releases.store import Store
from tests.cluster.conftest import eventually
from tests.drills.loaded import RESULTS, say
from tests.drills.openstack_cloud import OpenStack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME, DRIVER, FOLLOW = "openstack-cloud-controller-manager", "cinder-csi-plugin", "cloud-follow"
HOST, API, UID = "10.42.0.1", "10.42.0.2", "constell-ab12cd"
PLANE, WORKER = (f"aaaaaaaa-0000-4000-8000-00000000000{n}" for n in (1, 2))
SPACE = "cst-openstack"
_INSIDE = ("nsenter", f"--net=/run/netns/{SPACE}")
_OBJECTS = locks.artifacts_folder() / "cloud-openstack/objects.json"
_ADMIN = "an-administrators-token"
_GIB = 2**30


class NoDisks:
    """Machines whose volumes nobody looks at."""

    def attach(self, server: str, volume: str, size_gb: int) -> str:
        assert server == WORKER, (server, volume, size_gb)
        return "/dev/vdc"

    def grow(self, volume: str, size_gb: int) -> None:
        assert size_gb > 1, volume

    def detach(self, server: str, volume: str) -> None:
        assert server == WORKER, volume


@dataclass(kw_only=True)
class Stage:
    """Programs that run, and what was seen so far."""

    folder: Path
    programs: dict[str, Path]
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    seen: dict[str, float] = field(default_factory=dict)

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        argv = [*_INSIDE, str(self.programs[name]), *arguments]
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.running.append(process)
        return process

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def kubectl(self, *words: str, stdin: str = "") -> str:
        argv = [*_INSIDE, str(self.programs["kubectl"]), f"--server=https://{API}:6443"]
        done = subprocess.run(
            [*argv, f"--token={_ADMIN}", "--insecure-skip-tls-verify", *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.stdout if done.returncode == 0 else ""

    def wait(self, what: str, check: Callable[[], bool], *, seconds: float = 120) -> None:
        start = time.monotonic()
        if not eventually(check, seconds=seconds):
            for path in self.folder.glob("*.log"):
                say(path.name, path.read_text(errors="replace")[-3000:])
            raise AssertionError(f"not within {seconds} s: {what}")
        self.seen[what] = round(time.monotonic() - start, 1)
        say(f"{what}: {self.seen[what]} s")


@contextlib.contextmanager
def _stage() -> Iterator[Stage]:
    """Have a namespace and the locked programs; end what was started."""
    folder = Path(tempfile.mkdtemp(prefix="drill-openstack-"))
    locked, store = locks.load(), Store(cache_folder())
    source = (
        locked.shared.source
        | locked.versions[DEFAULT_KUBERNETES_VERSION].source
        | locked.clouds["openstack"].source
    )
    stage = Stage(folder=folder, programs={})
    for name in ("etcd", "kube-apiserver", "kubectl", NAME, DRIVER, FOLLOW):
        stage.programs[name] = folder / name
        stage.programs[name].write_bytes(store.path(source[name].sha256).read_bytes())
        stage.programs[name].chmod(0o755)
    _ip("netns", "add", SPACE)
    try:
        for words in (("link", "set", "lo", "up"), ("route", "add", "default", "dev", "lo")):
            _ip("-n", SPACE, *words)
        for address in (HOST, API):
            _ip("-n", SPACE, "address", "add", f"{address}/32", "dev", "lo")
        yield stage
    finally:
        for process in reversed(stage.running):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()
        _ip("netns", "delete", SPACE)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=60)


def run() -> dict[str, Any]:
    """Do all of it; give what was seen."""
    with _stage() as stage:
        keystone = stage.folder / "keystone"
        keystone.mkdir()
        net = Path("/run/netns") / SPACE
        stack = OpenStack.within(keystone, net=net, host=HOST, hardware=NoDisks())
        try:
            _api_server(stage)
            _nodes(stage, stack)
            _controller(stage, stack)
            asyncio.run(_driver(stage, stack))
            assert "forbidden" not in stage.log(FOLLOW).lower()
            assert stack.cloud.refused == []
            locked = locks.load().clouds["openstack"].source
            return {
                "kubernetes": DEFAULT_KUBERNETES_VERSION,
                "programs": {n: locked[n].sha256 for n in sorted((NAME, DRIVER, FOLLOW))},
                "seconds": stage.seen,
                "calls": sorted(set(stack.cloud.calls)),
            }
        finally:
            stack.close()


def _api_server(stage: Stage) -> None:
    key = stage.folder / "accounts.key"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    (stage.folder / "tokens").write_text(f'{_ADMIN},admin,admin,"system:masters"\n')
    etcd = "http://127.0.0.1:2379"
    urls = (f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}")
    stage.start("etcd", f"--data-dir={stage.folder}/etcd.d", *urls)
    stage.start(
        "kube-apiserver",
        *(f"--etcd-servers={etcd}", "--authorization-mode=RBAC", "--allow-privileged"),
        *(f"--bind-address={API}", f"--advertise-address={API}"),
        *(f"--cert-dir={stage.folder}/certificates", "--service-cluster-ip-range=10.96.0.0/12"),
        *(
            "--service-account-issuer=https://issuer.example",
            f"--token-auth-file={stage.folder}/tokens",
        ),
        *(f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}"),
    )
    stage.wait("the API server is ready", lambda: stage.kubectl("get", "--raw", "/readyz") == "ok")
    stage.wait("kube-system is there", lambda: "kube-system" in stage.kubectl("get", "namespaces"))
    assert stage.kubectl("apply", "-f", "-", stdin=_OBJECTS.read_text())


def _nodes(stage: Stage, stack: OpenStack) -> None:
    plane = {
        "node-role.kubernetes.io/control-plane": "",
        "node.kubernetes.io/exclude-from-external-load-balancers": "",
    }
    for name, server, labels in (("plane", PLANE, plane), ("worker", WORKER, {})):
        stack.cloud.servers[server] = "ACTIVE"
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": labels},
            "spec": {"providerID": f"openstack:///{server}"},
        }
        assert stage.kubectl("apply", "-f", "-", stdin=json.dumps(node))
        _says(stage, name, ready="True")


def _says(stage: Stage, name: str, *, ready: str) -> None:
    """Let a node say where it is, and whether it is Ready."""
    address = {"plane": "10.42.1.10", "worker": "10.42.2.10"}[name]
    moment = "2026-11-29T10:00:00Z"
    condition = {"type": "Ready", "status": ready, "reason": "said", "message": "said"}
    times = {"lastHeartbeatTime": moment, "lastTransitionTime": moment}
    status = {
        "addresses": [{"type": "InternalIP", "address": address}],
        "conditions": [condition | times],
    }
    patch = json.dumps({"status": status})
    words = ("--subresource=status", "--type=merge", "-p", patch)
    assert stage.kubectl("patch", "node", name, *words)


def _give(stage: Stage, stack: OpenStack, credential: tuple[str, str]) -> Path:
    folder = stage.folder / "openstack"
    folder.mkdir(exist_ok=True)
    for name, content in component_files(stack.access(UID, credential)).items():
        (folder / f".{name}").write_bytes(content.reveal())
        (folder / f".{name}").replace(folder / name)
    return folder


def _account(stage: Stage) -> Path:
    """Write the kubeconfig of the controller manager's own service account."""
    token = stage.kubectl("-n", "kube-system", "create", "token", NAME).strip()
    assert token
    cluster = {"server": f"https://{API}:6443", "insecure-skip-tls-verify": True}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "it", "cluster": cluster}],
        "users": [{"name": "it", "user": {"token": token}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "current-context": "it",
    }
    path = stage.folder / "kubeconfig"
    path.write_text(json.dumps(config))
    path.chmod(0o600)
    return path


def _arguments(container: str, folder: Path) -> list[str]:
    for item in json.loads(_OBJECTS.read_text())["items"]:
        pod = item.get("spec", {}).get("template", {}).get("spec", {})
        for found in pod.get("containers", ()):
            if found["name"] == container and "command" in found:
                return [a.replace("/etc/openstack", str(folder)) for a in found["args"]]
    raise AssertionError(f"no container {container}")


def _service(port: int, name: str = "web", **spec: Any) -> str:
    ports = [{"name": f"p{port}", "port": port, "targetPort": 8080}]
    spec = {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": ports} | spec
    kind = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}}
    return json.dumps(kind | {"spec": spec})


def _of(stack: OpenStack, key: str) -> list[Any]:
    """Give what each listener says of one thing."""
    return [listener[key] for listener in tuple(stack.cloud.listeners.values())]


def _controller(stage: Stage, stack: OpenStack) -> None:
    """Services come, change and go; another credential; a machine stops and goes."""
    cloud, first = stack.cloud, stack.credential("components")
    folder = _give(stage, stack, first)
    program = (str(stage.programs[NAME]), f"--kubeconfig={_account(stage)}")
    arguments = (str(folder), *program, *_arguments(NAME, folder))
    running = stage.start(FOLLOW, *arguments)
    stage.wait("it leads", lambda: "successfully acquired lease" in stage.log(FOLLOW).lower())

    def address(service: str) -> str:
        path = "jsonpath={.status.loadBalancer.ingress[0].ip}"
        return stage.kubectl("get", "service", service, "-o", path)

    stage.kubectl("apply", "-f", "-", stdin=_service(80))
    stage.wait("a load balancer for a Service", lambda: bool(address("web")))
    (balancer,) = cloud.balancers.values()
    assert balancer["name"] == f"kube_service_{UID}_default_web"
    assert [m["address"] for p in cloud.pools.values() for m in p["members"]] == ["10.42.2.10"]
    (floating,) = cloud.floating.values()
    assert address("web") == floating["floating_ip_address"]
    stage.kubectl("apply", "-f", "-", stdin=_service(81))
    stage.wait("another port", lambda: _of(stack, "protocol_port") == [81])
    limited = _service(81, loadBalancerSourceRanges=["192.0.2.0/24"])
    stage.kubectl("apply", "-f", "-", stdin=limited)
    stage.wait("who may reach it", lambda: _of(stack, "allowed_cidrs") == [["192.0.2.0/24"]])
    another = stack.credential("another")
    _give(stage, stack, another)
    assert running.wait(60) == 0
    stage.start(FOLLOW, *arguments)  # kubelet's part
    stage.wait("asked as another", lambda: stack.asked_as[-1] == another[0])
    stack.revoke(first[0])
    stage.kubectl("apply", "-f", "-", stdin=_service(90, "second"))
    stage.wait("a load balancer with it", lambda: bool(address("second")))
    assert not any(secret in stage.log(FOLLOW) for _, secret in (first, another))
    _says(stage, "worker", ready="Unknown")
    time.sleep(12)  # two looks: the machine runs, says Nova
    assert "worker" in stage.kubectl("get", "nodes")
    cloud.servers[WORKER] = "SHUTOFF"
    shut = "node.cloudprovider.kubernetes.io/shutdown"
    stage.wait("stopped: tainted", lambda: shut in stage.kubectl("get", "node", "-o", "json"))
    del cloud.servers[WORKER]
    stage.wait("gone: deleted", lambda: "worker" not in stage.kubectl("get", "nodes"))
    stage.wait("no members", lambda: not any(p["members"] for p in tuple(cloud.pools.values())))
    stage.kubectl("delete", "service", "web", "second", "--timeout=100s")
    left = (cloud.balancers, cloud.listeners, cloud.pools, cloud.floating)
    stage.wait("nothing is left", lambda: not any(left))


class _Bytes(CodecBase):
    """Messages as they are: CSI's are written below."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        assert message_type is bytes
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        assert message_type is bytes
        return data


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


def _field(number: int, value: str | bytes | int) -> bytes:
    """Write one field: protobuf, "Encoding"; numbers of fields: CSI 1.12, csi.proto."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


async def _driver(stage: Stage, stack: OpenStack) -> None:
    """A volume is made once, attached, grown, detached and removed."""
    stack.cloud.servers[WORKER] = "ACTIVE"
    folder, socket = stage.folder / "openstack", stage.folder / "csi.sock"
    arguments = _arguments(DRIVER, folder)
    arguments = [
        a if not a.startswith("--endpoint") else f"--endpoint=unix://{socket}" for a in arguments
    ]
    stage.start(FOLLOW, str(folder), str(stage.programs[DRIVER]), *arguments)
    await asyncio.to_thread(stage.wait, "the driver listens", socket.exists)
    channel = Channel(path=str(socket), codec=_Bytes())

    async def call(method: str, *fields: bytes) -> bytes:
        ask = UnaryUnaryMethod(channel, f"/csi.v1.Controller/{method}", bytes, bytes)
        return await ask(b"".join(fields), timeout=60)

    try:
        once = _field(2, _field(1, "ext4")) + _field(3, _field(1, 1))
        wanted = (_field(1, "pvc-1"), _field(2, _field(1, _GIB)), _field(3, once))
        for _ in range(2):
            await call("CreateVolume", *wanted)
        (volume,) = stack.cloud.volumes.values()
        assert volume["metadata"]["cinder.csi.openstack.org/cluster"] == UID
        it = _field(1, volume["id"])
        await call("ControllerPublishVolume", it, _field(2, WORKER), _field(3, once))
        assert volume["attachments"][0]["server_id"] == WORKER
        assert volume["id"].encode() in await call("ListVolumes")
        await call("ControllerExpandVolume", it, _field(2, _field(1, 2 * _GIB)))
        assert volume["size"] == 2
        await call("ControllerUnpublishVolume", it, _field(2, WORKER))
        await call("DeleteVolume", it)
        assert stack.cloud.volumes == {}
    finally:
        channel.close()


def main() -> int:
    """Run it; 0 if all was seen."""
    text = json.dumps(run(), indent=1) + "\n"
    (RESULTS / "drill-openstack-programs.json").write_text(text)
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
