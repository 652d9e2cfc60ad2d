"""The steps of a VM's image as Kubernetes nodes: what is demanded of each.

A node counts as Ready in the boot that the step is about: what the API last knew of an earlier one
proves nothing, so that every step compares `bootID`.
"""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any

from constellation.base import clock
from tests.vm.owner_cluster import PLANE, WORKER
from tests.vm.world import UNAVAILABLE, Failed, equal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.vm.owner_cluster import OwnerCluster

__all__ = ["again", "first", "is_other_boot", "is_ready", "worker", "worker_again"]

INIT_S, READY_S, RECOVER_S = 2400.0, 900.0, 900.0
_WORD = "what-was-written-before-the-power-cut"
_TRY_S = 10.0


async def first(cluster: OwnerCluster) -> dict[str, Any]:
    """`init` until the first control plane is Ready; then a Secret is written to etcd."""
    began = clock.monotonic_s()
    await cluster.power_on(PLANE)
    init = asyncio.create_task(cluster.init(within_s=INIT_S))
    watch = asyncio.create_task(
        cluster.until(
            "first node", lambda nodes: is_ready(nodes, control_plane=True), within_s=INIT_S
        )
    )
    try:
        await asyncio.wait({init, watch}, return_when=asyncio.FIRST_COMPLETED)
        if init.done():  # else it waits for the worker, whose step comes later
            init.result()
        nodes = await watch
        seconds = round(clock.monotonic_s() - began, 1)
        if not cluster.workers:
            times = await init
    finally:
        for task in (init, watch):
            task.cancel()
        await asyncio.gather(init, watch, return_exceptions=True)
    facts: dict[str, Any] = {"nodes": nodes, "ready_after_s": seconds}
    if not cluster.workers:
        facts |= {"init_runs": times, "verify": await _verified(cluster)}
    secret = ("create", "secret", "generic", "kept", f"--from-literal=word={_WORD}")
    await cluster.kubectl(*secret)
    facts["pods"] = await _pods(cluster)
    return facts


async def again(cluster: OwnerCluster) -> dict[str, Any]:
    """A power cut and `recover`: Ready in another boot, and etcd has what was written."""
    before = await cluster.until("before", bool, within_s=READY_S)
    began = clock.monotonic_s()
    await cluster.cut_power(PLANE)
    await cluster.power_on(PLANE)
    await _recovered(cluster)
    recovered = round(clock.monotonic_s() - began, 1)
    nodes = await cluster.until(
        "the node's next boot",
        lambda now: (
            is_ready(now, control_plane=True) and is_other_boot(before, now, control_plane=True)
        ),
        within_s=READY_S,
    )
    seconds = round(clock.monotonic_s() - began, 1)
    read = await cluster.kubectl("get", "secret", "kept", "-o", "jsonpath={.data.word}")
    equal("the Secret", base64.b64decode(read).decode(), _WORD)
    return {
        "nodes": nodes, "recovered_after_s": recovered, "ready_after_s": seconds,
        "verify": await _verified(cluster),
    }  # fmt: skip


async def worker(cluster: OwnerCluster) -> dict[str, Any]:
    """A second machine is powered on and told nothing: it joins, and `init` ends well."""
    began = clock.monotonic_s()
    await cluster.power_on(WORKER)
    times = await cluster.init(within_s=INIT_S)
    nodes = await cluster.until(
        "worker", lambda found: is_ready(found, control_plane=False), within_s=READY_S
    )
    return {
        "nodes": nodes, "ready_after_s": round(clock.monotonic_s() - began, 1), "init_runs": times,
        "log": (await cluster.tool("log")).splitlines()[-8:], "verify": await _verified(cluster),
        "pods": await _pods(cluster),
    }  # fmt: skip


async def worker_again(cluster: OwnerCluster) -> dict[str, Any]:
    """A power cut of the worker: a rejoin ticket opens its disk, and nobody brings anything."""
    before = await cluster.until("before", bool, within_s=READY_S)
    began = clock.monotonic_s()
    await cluster.cut_power(WORKER)
    await cluster.power_on(WORKER)
    nodes = await cluster.until(
        "the worker's next boot",
        lambda now: (
            is_ready(now, control_plane=False) and is_other_boot(before, now, control_plane=False)
        ),
        within_s=RECOVER_S,
    )
    return {"nodes": nodes, "ready_after_s": round(clock.monotonic_s() - began, 1)}


async def _recovered(cluster: OwnerCluster) -> None:
    """`recover` until it found the machine waiting for it."""
    end = clock.monotonic_s() + RECOVER_S
    while clock.monotonic_s() < end:
        code, text = await cluster.attempt("recover", within_s=RECOVER_S)
        if code == 0 and "Recovered " in text:
            return
        await asyncio.sleep(_TRY_S)
    raise Failed(f"nothing was recovered within {RECOVER_S:.0f} s: {text[-500:]}")


def is_ready(nodes: Mapping[str, Any], *, control_plane: bool) -> bool:
    """Say whether a node of this kind is there and Ready."""
    return any(n["ready"] for n in nodes.values() if n["control_plane"] is control_plane)


def is_other_boot(
    before: Mapping[str, Any], now: Mapping[str, Any], *, control_plane: bool
) -> bool:
    """Say whether the nodes of this kind are in another boot than before."""
    kind = {name: n["boot"] for name, n in before.items() if n["control_plane"] is control_plane}
    return bool(kind) and all(name in now and now[name]["boot"] != kind[name] for name in kind)


async def _pods(cluster: OwnerCluster) -> list[str]:
    shown = await cluster.kubectl("get", "pods", "-A", "--no-headers")
    return [" ".join(line.split()[1:4]) for line in shown.splitlines()]


async def _verified(cluster: OwnerCluster) -> list[str]:
    """`verify`: every node proves itself anew; gives the line of each, and of all.

    A node may be Ready before its VerificationService answers: "try again" is obeyed for a while.
    """
    end = clock.monotonic_s() + READY_S
    while True:
        code, text = await cluster.attempt("verify", "--wait", "60", within_s=READY_S)
        if code == 0:
            break
        if code != UNAVAILABLE or clock.monotonic_s() > end:
            raise Failed(f"verify ended with {code}: {text[-1500:]}")
        await asyncio.sleep(_TRY_S)
    return [line for line in text.splitlines() if " verified (" in line or line.startswith("All ")]
