"""A Kubernetes API server and its etcd, from the artifact cache, in a network that leads nowhere.

    with alone(hosts={"management.azure.com": "127.0.0.1"}, addresses=("169.254.169.254",)):
        with BareApi.started(folder, cache=…) as api: api.kubectl("get", "nodes")

For programs of clouds that need an API server and no node: RBAC is on, and a program is given the
token of its own ServiceAccount. Root. The namespaces end with the process, its children before.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from constellation.config.schema import DEFAULT_KUBERNETES_VERSION
from constellation.releases import lock as locks
from constellation.releases.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["NOBODY", "BareApi", "alone", "container_of", "eventually"]

NOBODY = 65534
"""As whom pods run that need not be root."""
_NEWNS, _NEWNET = 0x00020000, 0x40000000
_URL = "https://127.0.0.1:6443"
_START_S, _STOP_S, _CALL_S = 90.0, 10.0, 60.0


def alone(folder: Path, *, hosts: Mapping[str, str], addresses: tuple[str, ...]) -> None:
    """Leave the machine's network and mounts for good: names lead where `hosts` says."""
    # whoever ends this process means what it started as well
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEWNS | _NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    _do("mount", "--make-rprivate", "/")
    table = folder / "hosts"
    table.write_text("127.0.0.1 localhost\n" + "".join(f"{a} {n}\n" for n, a in hosts.items()))
    _do("mount", "--bind", str(table), "/etc/hosts")
    _do("ip", "link", "set", "lo", "up")
    for address in addresses:
        _do("ip", "address", "add", f"{address}/32", "dev", "lo")


def _do(*words: str) -> None:
    subprocess.run(words, check=True, timeout=_CALL_S)


def eventually(check: Any, *, seconds: float) -> bool:
    """Look until it is so. An assertion that fails is looked at again."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if check():
            return True
        time.sleep(0.5)
    return False


def container_of(objects: list[dict[str, Any]], of: str, name: str) -> dict[str, Any]:
    """Give the one container of this name, of the pods of the object `of`."""
    pods = [
        o["spec"]["template"]["spec"]
        for o in objects
        if o["kind"] == "DaemonSet" and o["metadata"]["name"] == of
    ]
    (found,) = (c for p in pods for c in p["containers"] if c["name"] == name)
    container: dict[str, Any] = found
    return container


@dataclass(slots=True, kw_only=True)
class BareApi:
    """The server, and the programs that were started beside it."""

    folder: Path
    store: Store
    admin: Path = field(init=False)
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @classmethod
    @contextlib.contextmanager
    def started(cls, folder: Path, *, cache: Path) -> Iterator[Self]:
        """Start etcd and API server in this network; end them and all others afterwards."""
        api = cls(folder=folder, store=Store(cache))
        try:
            api._start()
            yield api
        finally:
            api.stop()

    def start(
        self, name: str, program: Path, *arguments: str, user: int | None = None, **more: str
    ) -> Path:
        """Start a program, as a user with no group but its own; give the file of what it says."""
        log = self.folder / f"{name}.log"
        if user is not None:
            # the cache is its owner's alone
            program = Path(shutil.copy(program, self.folder / f"{name}.program"))
            program.chmod(0o755)
        with log.open("ab") as out:
            self._running.append(
                subprocess.Popen(
                    (str(program), *arguments),
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    cwd=self.folder,
                    user=user,
                    group=user,
                    extra_groups=None if user is None else [],
                    env={"PATH": os.environ["PATH"], "HOME": str(self.folder), **more},
                )
            )
        return log

    def stop(self) -> None:
        """End everything that was started, the last first."""
        while self._running:
            child = self._running.pop()
            child.terminate()
            try:
                child.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait(_STOP_S)

    def kubectl(self, *words: str, stdin: str = "", check: bool = True) -> str:
        """Ask as the administrator."""
        done = subprocess.run(
            (str(self._program("kubectl")), "--kubeconfig", str(self.admin), *words),
            input=stdin, text=True, capture_output=True, timeout=_CALL_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0 or not check, f"{words}: {done.stderr}"
        return done.stdout

    def objects(self, kind: str, *words: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", kind, "-o", "json", *words))[
            "items"
        ]
        return found

    def apply(self, *objects: dict[str, Any]) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(listed))

    def kubeconfig_of(self, account: str) -> Path:
        """Give the kubeconfig of a ServiceAccount of kube-system."""
        token = self.kubectl("-n", "kube-system", "create", "token", account, "--duration=1h")
        path = self._kubeconfig(account, token.strip())
        os.chown(path, NOBODY, NOBODY)
        return path

    def folder_of(self, name: str) -> Path:
        """Give a folder of its own to a pod without root."""
        path = self.folder / name
        path.mkdir()
        os.chown(path, NOBODY, NOBODY)
        return path

    def _program(self, name: str) -> Path:
        packaged = locks.load()
        version = packaged.versions[DEFAULT_KUBERNETES_VERSION]
        return self.store.path((version.source | packaged.shared.source)[name].sha256)

    def _start(self) -> None:
        self.folder.chmod(0o755)
        token = secrets.token_hex(16)
        (self.folder / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
        key = ec.generate_private_key(ec.SECP256R1())
        (self.folder / "accounts.pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        self.start("etcd", self._program("etcd"), "--data-dir=etcd", "--unsafe-no-fsync")
        self.start(
            "kube-apiserver",
            self._program("kube-apiserver"),
            "--etcd-servers=http://127.0.0.1:2379",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--cert-dir=certificates",
            "--token-auth-file=tokens.csv",
            "--authorization-mode=RBAC",
            "--allow-privileged=true",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-account-key-file=accounts.pem",
            "--service-account-signing-key-file=accounts.pem",
            "--service-cluster-ip-range=10.96.0.0/16",
        )
        self.admin = self._kubeconfig("admin", token)
        ready = ("get", "--raw", "/readyz")
        assert eventually(lambda: self.kubectl(*ready, check=False) == "ok", seconds=_START_S), (
            self.folder / "kube-apiserver.log"
        ).read_text()[-4000:]

    def _kubeconfig(self, name: str, token: str) -> Path:
        path = self.folder / f"{name}.conf"
        authority = str(self.folder / "certificates/apiserver.crt")
        cluster = {"server": _URL, "certificate-authority": authority}
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "here", "cluster": cluster}],
                    "users": [{"name": name, "user": {"token": token}}],
                    "contexts": [{"name": "here", "context": {"cluster": "here", "user": name}}],
                    "current-context": "here",
                }
            )
        )
        path.chmod(0o600)
        return path
