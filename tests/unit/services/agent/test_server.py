"""The agent on real sockets with a real swtpm."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from constellation.atls.binding import channel_binding, verify_binding
from constellation.attestation.model import Variant
from constellation.attestation.platforms import local_vtpm
from constellation.attestation.tpm.device import Tpm
from constellation.attestation.tpm.eventlog import EventLog
from constellation.base.errors import Conflict, FormatError, Rejected
from constellation.rpc.agent_client import AgentClient, agent_socket
from constellation.services.agent.allowed import DOORS, Door
from constellation.services.agent.machine import TpmMachine
from constellation.services.agent.server import serve
from tests.fakes.tpm import NOW, LocalCloudCa, swtpm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

IMAGE = hashlib.sha256(b"node image").digest()
DOCUMENT = b'{"clusterID":"a node document"}'
CLUSTER_ID = hashlib.sha256(b"cluster").digest()
PARTS = {"exporter": b"e" * 32, "spki_digest": b"s" * 32, "peer_nonce": b"n" * 32}


class Node:
    def __init__(self, folder: Path, ca: LocalCloudCa, machine: TpmMachine) -> None:
        self.folder, self.ca, self.machine = folder, ca, machine
        _, extends = local_vtpm.firmware_log(IMAGE, "line", b"os")
        self.reference = {n: (v,) for n, v in local_vtpm.predicted_pcrs(extends).items()}

    def verifier(self, *, joined: bool) -> local_vtpm.LocalVtpmVerifier:
        policy = local_vtpm.policy(
            self.reference,
            node_document_digest=hashlib.sha256(DOCUMENT).digest(),
            cluster_id=CLUSTER_ID if joined else None,
        )
        return local_vtpm.LocalVtpmVerifier(policy=policy, trust_roots=(self.ca.root,))

    @asynccontextmanager
    async def door(self, name: str) -> AsyncIterator[AgentClient]:
        client = await AgentClient.connect(agent_socket(name, folder=self.folder / "agent"))
        try:
            yield client
        finally:
            client.close()


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    # unix socket paths are short: pytest's own folders are too deep
    with tempfile.TemporaryDirectory(prefix="agent") as name:
        folder = Path(name)
        ca = LocalCloudCa()
        log, extends = local_vtpm.firmware_log(IMAGE, "line", b"os")
        async with swtpm(folder) as socket:
            async with await Tpm.connect(socket) as tpm:
                await local_vtpm.manufacture(tpm, ca.certify)
                for number, digest in extends:
                    await tpm.extend(number, digest)
            (folder / "firmware").write_bytes(log)
            await local_vtpm.measure_node_document(
                socket, DOCUMENT, firmware_log=folder / "firmware", event_log=folder / "log"
            )
            machine = await TpmMachine.connect(
                socket, event_log=folder / "log", cache=folder, variant=Variant.LOCAL_VTPM
            )
            servers = await serve(machine, doors=DOORS, folder=folder / "agent")
            yield Node(folder, ca, machine)
            for server in servers:
                server.close()
            await machine.close()


async def test_evidence_for_a_channel_is_bound_to_its_parts_and_purpose(node: Node) -> None:
    async with node.door("joinservice") as agent:
        assert agent.variant is Variant.LOCAL_VTPM
        evidence = await agent.attest(purpose="join-server", **PARTS)
    binding = channel_binding(purpose="join-server", variant=Variant.LOCAL_VTPM, **PARTS)
    result = node.verifier(joined=False).appraise(evidence, binding=binding, now=NOW)
    assert result.attester_id == agent.attester_id


async def test_evidence_for_a_verify_call_is_bound_to_its_nonce(node: Node) -> None:
    async with node.door("verification") as agent:
        evidence = await agent.attest_verify(nonces_root=b"n" * 32, cluster_ca_digest=b"c" * 32)
    binding = verify_binding(nonces_root=b"n" * 32, cluster_ca_digest=b"c" * 32)
    node.verifier(joined=False).appraise(evidence, binding=binding, now=NOW)


async def test_the_node_is_given_once_a_boot_and_says_so(node: Node) -> None:
    async with node.door("bootstrapper") as agent:
        assert not await agent.given_to_cluster()
        await agent.give_to_cluster(CLUSTER_ID)
        assert await agent.given_to_cluster()
        before = (node.folder / "log").read_bytes()
        with pytest.raises(Conflict, match="PCR 15 was extended"):
            await agent.give_to_cluster(CLUSTER_ID)
        with pytest.raises(Conflict):
            await agent.give_to_cluster(b"x" * 32)
        evidence = await agent.attest(purpose="join-client", **PARTS)
    binding = channel_binding(purpose="join-client", variant=Variant.LOCAL_VTPM, **PARTS)
    node.verifier(joined=True).appraise(evidence, binding=binding, now=NOW)
    assert (node.folder / "log").read_bytes() == before
    assert EventLog.parse(before).events[-1].pcr == 15


async def test_two_at_once_give_the_node_only_once(node: Node) -> None:
    async with node.door("bootstrapper") as one, node.door("diskmapper") as two:
        results = await asyncio.gather(
            *(agent.give_to_cluster(CLUSTER_ID) for agent in (one, two)), return_exceptions=True
        )
    assert sorted(type(r).__name__ for r in results) == ["Conflict", "NoneType"]


@pytest.mark.parametrize(
    ("door", "purpose"),
    [
        ("bootstrapper", "join-server"),
        ("joinservice", "init-server"),
        ("diskmapper", "join-client"),
        ("verification", "join-server"),
        ("joinservice", ""),
    ],
)
async def test_a_door_attests_for_no_other_purpose(node: Node, door: str, purpose: str) -> None:
    async with node.door(door) as agent:
        with pytest.raises(Rejected, match="purpose"):
            await agent.attest(purpose=purpose, **PARTS)


async def test_only_verification_attests_for_verify_calls(node: Node) -> None:
    async with node.door("bootstrapper") as agent:
        with pytest.raises(Rejected, match="verify"):
            await agent.attest_verify(nonces_root=b"n" * 32, cluster_ca_digest=b"c" * 32)


@pytest.mark.parametrize("door", ["joinservice", "verification"])
async def test_other_doors_do_not_give_the_node_away(node: Node, door: str) -> None:
    async with node.door(door) as agent:
        with pytest.raises(Rejected, match="may not give"):
            await agent.give_to_cluster(CLUSTER_ID)
        assert not await agent.given_to_cluster()


async def test_parts_of_another_size_are_refused(node: Node) -> None:
    async with node.door("joinservice") as agent:
        with pytest.raises(FormatError, match="exporter: 31 bytes"):
            await agent.attest(purpose="join-server", **(PARTS | {"exporter": b"e" * 31}))
        with pytest.raises(FormatError, match="peer_nonce: 0 bytes"):
            await agent.attest(purpose="join-server", **(PARTS | {"peer_nonce": b""}))


async def test_many_callers_at_once_each_get_their_own_evidence(node: Node) -> None:
    async with node.door("verification") as agent:
        nonces = [bytes([i]) * 32 for i in range(8)]
        found = await asyncio.gather(
            *(agent.attest_verify(nonces_root=n, cluster_ca_digest=b"c" * 32) for n in nonces)
        )
    for nonce, evidence in zip(nonces, found, strict=True):
        binding = verify_binding(nonces_root=nonce, cluster_ca_digest=b"c" * 32)
        node.verifier(joined=False).appraise(evidence, binding=binding, now=NOW)


_SAY_HELLO = """
import os, socket, sys
os.setuid(int(sys.argv[2]))
caller = socket.socket(socket.AF_UNIX)
caller.settimeout(10)
caller.connect(sys.argv[1])
try:
    caller.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n")
    print("answered" if caller.recv(100) else "cut off")
except OSError:
    print("cut off")
"""


@pytest.mark.parametrize(("own", "answer"), [(True, "answered"), (False, "cut off")])
async def test_a_door_is_open_to_its_user_and_to_no_other(
    node: Node, own: bool, answer: str
) -> None:
    # root may always: as root the caller is somebody else
    caller = os.getuid() or 65534
    door = Door(name="other", purposes=frozenset(), uid=caller if own else caller - 1)
    node.folder.chmod(0o711)
    servers = await serve(node.machine, doors=(door,), folder=node.folder / "more")
    try:
        process = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-I",
                "-c",
                _SAY_HELLO,
                str(agent_socket("other", folder=node.folder / "more")),
            ),
            str(caller),
            stdout=asyncio.subprocess.PIPE,
            cwd="/",
        )
        said, _ = await process.communicate()
    finally:
        for server in servers:
            server.close()
    assert said.decode().strip() == answer


async def test_sockets_of_root_are_closed_to_others_by_their_mode(node: Node) -> None:
    for door in DOORS:
        path = agent_socket(door.name, folder=node.folder / "agent")
        assert path.stat().st_mode & 0o777 == 0o600


async def test_a_folder_holds_one_door_and_nothing_else(node: Node) -> None:
    folders = sorted(p.name for p in (node.folder / "agent").iterdir())
    assert folders == sorted(door.name for door in DOORS)
    for folder in (node.folder / "agent").iterdir():
        assert [p.name for p in folder.iterdir()] == ["agent.sock"]
