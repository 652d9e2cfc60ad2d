"""kubectl and kubeadm on a control plane's host: bounded in time, never a secret in argv.

Both read files of the node; what they are told about the cluster comes from the caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.base.errors import Unavailable
from constellation.base.proc import run
from constellation.base.retry import until_available
from constellation.kube import units

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "apply_objects",
    "environment",
    "forget_bootstrap_tokens",
    "kubeadm",
    "kubectl",
    "settle",
]

_CALL_S = 30.0
_APPLY_S = 180.0
"""What one `kubectl apply` of many objects may take: cut off, it begins anew from the first of
them, so that a machine which needs longer would never come to the last (ADR 131)."""
_SETTLE_S = 120.0
_OBJECTS_S = 60.0
"""So long one that failed is tried again."""
_UNWANTED_BINDINGS = (
    "kubeadm:kubelet-bootstrap",
    "kubeadm:get-nodes",
    "kubeadm:node-autoapprove-bootstrap",
)
"""What kubeadm's bootstrap-token phase makes and nobody here may have (design, section 10)."""


def environment() -> dict[str, str]:
    """Give the environment of kubeadm and kubectl: nothing but where programs are."""
    return {
        "PATH": f"{units.BIN_DIR}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
    }


async def kubectl(*words: str, kubeconfig: Path, stdin: bytes = b"") -> bytes:
    """Run kubectl; gives what it printed. Raises Unavailable with the end of its output."""
    return await _kubectl(*words, kubeconfig=kubeconfig, stdin=stdin, timeout_s=_CALL_S)


async def _kubectl(*words: str, kubeconfig: Path, stdin: bytes, timeout_s: float) -> bytes:
    finished = await run(
        units.BIN_DIR / "kubectl",
        "--kubeconfig",
        kubeconfig,
        *words,
        timeout_s=timeout_s,
        env=environment(),
        stdin=stdin,
    )
    return finished.stdout


async def apply_objects(objects: bytes, *, kubeconfig: Path) -> None:
    """Bring objects (a JSON List) to the API. Raises Unavailable: not within a few minutes."""

    async def attempt() -> None:
        await _kubectl(
            *("apply", "--server-side", "--field-manager=constellation"),
            *("--force-conflicts", "-f", "-"),
            kubeconfig=kubeconfig,
            stdin=objects,
            timeout_s=_APPLY_S,
        )

    await until_available(attempt, deadline_s=_OBJECTS_S)


async def forget_bootstrap_tokens(*, kubeconfig: Path) -> None:
    """Delete the bootstrap token and the bindings that would let a token's holder join."""
    await kubectl(
        *("-n", "kube-system", "delete", "secrets", "--ignore-not-found"),
        *("--field-selector", "type=bootstrap.kubernetes.io/token"),
        kubeconfig=kubeconfig,
    )
    await kubectl(
        *("delete", "clusterrolebindings", "--ignore-not-found", *_UNWANTED_BINDINGS),
        kubeconfig=kubeconfig,
    )


async def settle(folder: Path) -> None:
    """Wait until the file system of a folder is on its disk: what is reported must outlive a cut.

    kubeadm and containerd write without waiting for it.
    """
    await run("sync", "--file-system", folder, timeout_s=_SETTLE_S)


async def kubeadm(program: Path, *words: str | Path, timeout_s: float) -> None:
    """Run kubeadm. Raises Unavailable with the end of its output."""
    finished = await run(program, *words, timeout_s=timeout_s, env=environment(), check=False)
    if finished.returncode != 0:
        said = (finished.stderr or finished.stdout).decode(errors="replace").strip()
        name = " ".join(str(word) for word in words if not str(word).startswith("-"))
        raise Unavailable(f"kubeadm {name}: {said[-1500:]}")
