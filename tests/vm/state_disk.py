"""A VM's state disk, made by `init` and opened again by `recover`, as an owner has it done.

Everything is said to the machine over its ports, with evidence that is judged; what its disk holds
is looked at, and changed, from outside, as whoever owns the disk would.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.atls import client
from constellation.base import clock
from constellation.base.errors import Unavailable
from constellation.disk.luks_header import DATA_OFFSET_BYTES, HEADER_BYTES, judge_luks
from constellation.rpc.errors import raise_ours
from constellation.rpc.stubs import init_grpc, init_pb2, recover_grpc, recover_pb2
from constellation.trust import artifact_list
from constellation.trust.artifact_list import Artifact, ArtifactKind, ArtifactList
from constellation.trust.channel_proof import OWNER_CHANNEL_LABEL, prove_owner_channel
from tests.fakes.luks_edits import COPIES_BYTES, sealed, setting, with_json
from tests.vm.image_vm import ADDRESS, HANDSHAKE_S, TRY_EVERY_S, DidNotStart

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from constellation.atls.client import AtlsChannel
    from constellation.disk.superblock import DiskState
    from tests.vm.image_vm import Owner, Vm

__all__ = ["Talk", "allocated", "changed_header", "damage", "foreign_header", "overwrite", "state"]

NAME = "vm-image-state-disk"
_VERSION = "v1.36.2"
_CALL_S = 300.0
_MIB = 1024 * 1024
_DAMAGED_BYTES = 24 * _MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """An owner who speaks to one machine; `within_s` bounds every wait for it."""

    vm: Vm
    owner: Owner
    reference: Mapping[int, tuple[bytes, ...]]
    within_s: float
    instance_id: str = f"host-{ADDRESS.replace('.', '-')}"

    async def init(self, *, again: bool) -> tuple[tuple[str, ...], init_pb2.Failed]:
        """Begin a cluster: gives the finished steps and how it ended; `again`: with no secret."""
        channel = await self._reach(self.vm.port, "init", joined=again)
        try:
            start = init_pb2.Start(
                owner_signature=self._proof(channel, "init"),
                plan=_plan(self.instance_id),
                time=_now(),
            )
            if not again:
                start.master_key = self.owner.master.key.reveal()
                start.master_salt = self.owner.master.salt.reveal()
            done = []
            stub = init_grpc.InitServiceStub(channel.grpc)
            with raise_ours("machine"):
                async with asyncio.timeout(_CALL_S), stub.Init.open() as stream:
                    await stream.send_message(init_pb2.InitRequest(start=start))
                    while (event := await stream.recv_message()) is not None:
                        if event.HasField("done"):
                            done.append(event.done.name)
                        if event.HasField("failed"):
                            await stream.end()
                            return tuple(done), event.failed
        finally:
            channel.close()
        raise DidNotStart("init ended without a word")

    async def recover(self) -> str:
        """Bring the disk's key; gives the node's name as its disk has it."""
        channel = await self._reach(self.vm.recovery_port, "recover", joined=False)
        try:
            request = recover_pb2.RecoverRequest(
                owner_signature=self._proof(channel, "recover"),
                master_key=self.owner.master.key.reveal(),
                master_salt=self.owner.master.salt.reveal(),
                time=_now(),
            )
            with raise_ours("machine"):
                stub = recover_grpc.RecoveryServiceStub(channel.grpc)
                reply = await stub.Recover(request, timeout=_CALL_S)
        finally:
            channel.close()
        return str(reply.node_name)

    async def console_says(self, words: str) -> str:
        """Wait for a line on the console. Raises DidNotStart: it did not come."""
        end = clock.monotonic_s() + self.within_s
        while clock.monotonic_s() < end:
            for line in self.vm.console().splitlines():
                if words in line:
                    return line.strip()
            await asyncio.sleep(TRY_EVERY_S)
        raise DidNotStart(f"nothing on the console says {words!r}: {self.vm.console()[-3000:]}")

    async def _reach(self, port: int, service: str, *, joined: bool) -> AtlsChannel:
        end = clock.monotonic_s() + self.within_s
        while clock.monotonic_s() < end:
            if self.vm.process.returncode is not None:
                break
            with contextlib.suppress(Unavailable):
                return await client.connect(
                    "127.0.0.1",
                    port,
                    purpose=f"{service}-client",
                    server_purpose=f"{service}-server",
                    attester=None,
                    appraise=lambda evidence, binding: self.owner.appraise(
                        evidence, binding, self.reference, joined=joined
                    ),
                    deadline_s=HANDSHAKE_S,
                )
            await asyncio.sleep(TRY_EVERY_S)
        raise DidNotStart(f"nobody answered {service}: {self.vm.console()[-3000:]}")

    def _proof(self, channel: AtlsChannel, purpose: str) -> bytes:
        return prove_owner_channel(
            self.owner.key,
            exporter=channel.exporter(OWNER_CHANNEL_LABEL),
            cluster_id=self.owner.cluster_id,
            purpose=purpose,
        )


def state(disk: Path) -> tuple[DiskState, bytes]:
    """Judge a disk's header as a node does; gives the copies too (32 KiB)."""
    with disk.open("rb") as file:
        header = file.read(HEADER_BYTES)
    return judge_luks(header, blank=not any(header)), header[:COPIES_BYTES]


def changed_header(copies: bytes) -> bytes:
    """Give the header with the cipher that is none, checksums and all."""
    return with_json(copies, setting("segments/0/encryption", "cipher_null-ecb"))


def foreign_header(copies: bytes) -> bytes:
    """Give the header of somebody else's disk."""

    def edit(copy: bytearray) -> None:
        copy[24:72] = b"photos".ljust(48, b"\0")

    return sealed(copies, edit)


def overwrite(disk: Path, copies: bytes) -> None:
    """Write another header onto the disk, whether the machine runs or not."""
    with disk.open("r+b") as file:
        file.write(copies)


def damage(disk: Path) -> int:
    """Flip one bit of each block behind dm-integrity's journal; gives how many."""
    # superblock of 4096 bytes, then the journal: 16368 sectors on a small disk, twice that at most
    first = DATA_OFFSET_BYTES + 4096 + 16368 * 512
    count = 0
    with disk.open("r+b") as file:
        for at in range(first, first + _DAMAGED_BYTES, 4096):
            file.seek(at + 100)
            byte = file.read(1)
            file.seek(at + 100)
            file.write(bytes((byte[0] ^ 1,)))
            count += 1
    return count


def allocated(disk: Path, words: tuple[bytes, ...]) -> tuple[int, tuple[bytes, ...]]:
    """Read all that lies on a disk; gives its size, and which of `words` stand there in plain."""
    found, size, at = set[bytes](), 0, 0
    longest = max(len(word) for word in words)
    with disk.open("rb", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        while at < end:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing but holes is left
                break
            chunk = os.pread(file.fileno(), 16 * _MIB, at)
            found |= {word for word in words if word in chunk}
            size += len(chunk)
            at += max(len(chunk) - longest, 1) if len(chunk) > longest else len(chunk)
    return size, tuple(sorted(found))


def _plan(instance_id: str) -> init_pb2.ClusterPlan:
    services = Artifact(name="services", kind=ArtifactKind.ARCHIVE, sha256="ab" * 32, size_bytes=8)
    listed = ArtifactList(kubernetes_version=_VERSION, artifacts=()).with_artifacts(services)
    return init_pb2.ClusterPlan(
        name=NAME,
        kubernetes_version=_VERSION,
        artifact_list=artifact_list.dump(listed),
        endpoint=f"{ADDRESS}:6443",
        user_endpoint=f"{ADDRESS}:6443",
        service_cidr="10.96.0.0/12",
        pod_cidr="10.244.0.0/16",
        mesh_cidr="10.43.0.0/16",
        node_groups=[
            init_pb2.NodeGroup(name="control_plane_default", role="control-plane", size=1)
        ],
        instance_id=instance_id,
    )


def _now() -> int:
    return int(clock.now().timestamp())
