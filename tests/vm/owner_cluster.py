"""A cluster of emulated machines, made and brought back by its owner with the command line tool.

The owner has a conf for hosts of one's own, a publisher's repository and web server, and a network
in which the hosts answer. Whatever is asked of Kubernetes is asked with the kubectl and kubeconfig
that `init` left.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.serialization import Encoding

from constellation.base import clock
from constellation.config.workspace import Workspace
from tests.vm.image_vm import DidNotStart, Hardware, give_tpm, make_medium, started
from tests.vm.publisher import PORT, publish, web_server
from tests.vm.wire import ROUTER, addresses, wire
from tests.vm.world import UNAVAILABLE, Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from constellation.base.progress import Report
    from constellation.image.machine import MachineFlavour
    from constellation.image.store import NodeImage
    from tests.vm.image_vm import Owner, Programs, Vm
    from tests.vm.wire import Wire

__all__ = ["OwnerCluster", "boots"]

ROOT = Path(__file__).resolve().parents[2]
NAME = "vmimage"
PLANE, WORKER = 0, 1
CONTROL_PLANE_MIB, WORKER_MIB = 3072, 2048
_CALL_S, _LOOK_S, _PAUSE_S = 120.0, 60.0, 5.0
_CONF = """version: 1
name: {name}
provider:
  baremetal:
    hosts: {hosts}
    trustRoots: roots.pem
    endpoint: {first}:6443
releases:
  repository: site
  root: site/metadata/1.root.json
artifacts:
  sources: ["http://{router}:{port}"]
attestation:
  variant: {variant}
  acceptWeaker: machines of a test, whose vTPMs are processes of this machine
nodeGroups:
  control_plane_default: {{role: control-plane, size: 1}}
"""
_WORKERS = "  worker_default: {role: worker, size: 1}\n"


@dataclass(kw_only=True)
class OwnerCluster:
    """One cluster; `workers` 0 or 1. What is powered on ends with `stack`."""

    folder: Path
    cache: Path
    programs: Programs
    owner: Owner
    image: NodeImage
    processors: int
    workers: int
    stack: contextlib.AsyncExitStack
    wire: Wire = field(init=False)
    workspace: Workspace = field(init=False)
    machines: dict[int, tuple[Vm, contextlib.AsyncExitStack]] = field(default_factory=dict)
    starts: int = 0

    async def create(self, flavour: MachineFlavour, *, report: Report) -> None:
        """Publish the image, serve artifacts, and `create`: the hosts' media lie ready then."""
        await asyncio.to_thread(self.folder.mkdir)
        self.workspace = Workspace(folder=self.folder / "workspace")
        self.workspace.folder.mkdir()
        own = addresses(1 + self.workers)
        statement = await publish(
            self.workspace.folder, self.image, flavour, cache=self.cache, report=report
        )
        groups = {"control_plane_default": [own[PLANE]]}
        if self.workers:
            groups["worker_default"] = [own[WORKER]]
        text = _CONF.format(
            name=NAME, hosts=json.dumps(groups), first=own[PLANE], router=ROUTER, port=PORT,
            variant=flavour.variant,
        )  # fmt: skip
        self.workspace.config.write_text(text + _WORKERS * self.workers)
        root = self.owner.authority.certificate.public_bytes(Encoding.PEM)
        (self.workspace.folder / "roots.pem").write_bytes(root)
        self.wire = await self.stack.enter_async_context(
            wire(self.programs, machines=1 + self.workers, folder=self.folder)
        )
        served = self.folder / "www"
        await self.tool("artifacts", "mirror", "--release", str(statement), "--to", str(served))
        server = web_server(self.wire, served, log=self.folder / "www.log")
        await self.stack.enter_async_context(server)
        await self.tool("create", "--yes")
        for number, address in enumerate(own):
            host = self.workspace.hosts / f"host-{address.replace('.', '-')}"
            files = {path.name: path.read_bytes() for path in sorted(host.iterdir())}
            medium = self.folder / f"medium-{number}.raw"
            await make_medium(medium, files, machine=self.programs.machine)
            await give_tpm(self.folder / f"tpm-{number}", self.owner, tools=self.programs.tools)

    async def power_on(self, number: int) -> Vm:
        """Power a machine on; its state disk is what it was when its power was cut."""
        self.starts += 1
        own = contextlib.AsyncExitStack()
        memory = WORKER_MIB if number else CONTROL_PLANE_MIB
        vm = await own.enter_async_context(
            started(
                self.programs, disk=self.image.path, medium=self.folder / f"medium-{number}.raw",
                tpm=self.folder / f"tpm-{number}",
                folder=self.folder / f"start-{self.starts}-of-{number}",
                hardware=Hardware(processors=self.processors, memory_mib=memory),
                state=self.folder / f"state-{number}.raw", network=self.wire.plug(number),
            )
        )  # fmt: skip
        self.machines[number] = (vm, own)
        self.stack.push_async_callback(own.aclose)
        return vm

    async def cut_power(self, number: int) -> None:
        """End a machine as a power cut does."""
        await self.machines.pop(number)[1].aclose()

    async def attempt(self, *arguments: str, within_s: float) -> tuple[int, str]:
        """Run the tool in the hosts' network, printing what it says; code and output."""
        code, text = -1, ""
        process = await asyncio.create_subprocess_exec(
            *self.wire.enter(sys.executable, "-P", "-m", "constellation.cli.main"),
            *("-C", str(self.workspace.folder), *arguments),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )  # fmt: skip
        assert process.stdout is not None
        try:
            async with asyncio.timeout(within_s):
                while line := await process.stdout.readline():
                    shown = line.decode(errors="replace").rstrip()
                    print(f"  {arguments[0]}: {shown}", flush=True)
                    text += shown + "\n"
                code = await process.wait()
        except TimeoutError:
            raise Failed(f"{arguments[0]} did not end within {within_s:.0f} s") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, 9)
                await process.wait()
        return code, text

    async def tool(self, *arguments: str, within_s: float = 300.0) -> str:
        """Run the tool, which has to end well; gives what it says."""
        code, text = await self.attempt(*arguments, within_s=within_s)
        if code != 0:
            raise Failed(f"{arguments[0]} ended with {code}: {text[-1500:]}")
        return text

    async def init(self, *, within_s: float) -> int:
        """`init`, again for as long as it says "unavailable, try again"; gives how often."""
        end, times = clock.monotonic_s() + within_s, 0
        while True:
            times += 1
            code, text = await self.attempt("init", within_s=max(end - clock.monotonic_s(), 1.0))
            if code == 0:
                return times
            if code != UNAVAILABLE:
                raise Failed(f"init ended with {code}: {text[-1500:]}")

    async def kubectl(self, *words: str, stdin: str = "") -> str:
        """Run kubectl, which has to end well; gives its output."""
        files = ("--kubeconfig", self.workspace.kubeconfig, "--request-timeout", "60s")
        process = await asyncio.create_subprocess_exec(
            *self.wire.enter(self.workspace.kubectl, *files, *words),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(_CALL_S):
                out, err = await process.communicate(stdin.encode())
        except TimeoutError:
            process.kill()
            await process.wait()
            raise Failed(f"kubectl {' '.join(words)[:80]} did not end") from None
        if process.returncode != 0:
            raise Failed(f"kubectl {' '.join(words)[:80]}: {err.decode()[-500:]}")
        return out.decode()

    async def until(
        self, what: str, look: Callable[[Mapping[str, Any]], bool], *, within_s: float
    ) -> Mapping[str, Any]:
        """Wait until the API's list of nodes is as wanted; gives it.

        Raises:
            Failed: it did not become so. DidNotStart: a machine ended meanwhile.
        """
        end, seen = clock.monotonic_s() + within_s, "the API was not asked"
        while clock.monotonic_s() < end:
            for vm, _ in self.machines.values():
                if vm.process.returncode is not None:
                    raise DidNotStart(f"a machine ended: {vm.console()[-2000:]}")
            if self.workspace.kubectl.exists() and self.workspace.kubeconfig.exists():
                try:
                    nodes = boots(json.loads(await self.kubectl("get", "nodes", "-o", "json")))
                except Failed as error:
                    seen = str(error)
                else:
                    seen = json.dumps(nodes)
                    if look(nodes):
                        return nodes
            await asyncio.sleep(_PAUSE_S)
        raise Failed(f"{what}: not within {within_s:.0f} s: {seen}")


def boots(listed: Mapping[str, Any]) -> dict[str, Any]:
    """Give of each node in the API's list: the boot that it is in, and whether it is Ready."""
    return {
        item["metadata"]["name"]: {
            "ready": any(
                c["type"] == "Ready" and c["status"] == "True" for c in item["status"]["conditions"]
            ),
            "boot": item["status"]["nodeInfo"]["bootID"],
            "control_plane": "node-role.kubernetes.io/control-plane" in item["metadata"]["labels"],
            "kernel": item["status"]["nodeInfo"]["kernelVersion"],
            "kubelet": item["status"]["nodeInfo"]["kubeletVersion"],
            "runtime": item["status"]["nodeInfo"]["containerRuntimeVersion"],
        }
        for item in listed["items"]
    }
