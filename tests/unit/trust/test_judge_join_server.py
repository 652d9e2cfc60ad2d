"""A joining node believes a JoinService only if all six checks hold; each has its vector."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from constellation.attestation.model import Binding, Evidence, Variant
from constellation.attestation.platforms import local_vtpm
from constellation.attestation.platforms.local_vtpm_log import predicted_pcrs
from constellation.attestation.tpm.device import Tpm
from constellation.base.errors import FormatError, Rejected, Untrusted
from constellation.crypto.signing import generate_key, spki
from constellation.trust.channel_proof import prove_join_channel
from constellation.trust.cluster_policy import AcceptedRelease, ClusterPolicy, sign_policy
from constellation.trust.judge_join_server import Shown, judge_join_server
from constellation.trust.node_document import NodeDocument, dump_node_document
from tests.fakes.tpm import NOW, LocalCloudCa, swtpm

IMAGE = hashlib.sha256(b"node image").digest()
LINE = "constellation.provider=local constellation.variant=local-vtpm"
OS_RELEASE = b"ID=constellation\n"
CLUSTER_ID = hashlib.sha256(b"cluster").digest()
BINDING = Binding(hashlib.sha512(b"this channel").digest())
EXPORTER = hashlib.sha256(b"exporter of this channel").digest()
OWNER, JOIN, STRANGER = generate_key(), generate_key(), generate_key()
DOCUMENT = NodeDocument(
    version=1,
    cluster_id=CLUSTER_ID,
    owner_public_key=spki(OWNER.public_key()),
    release_root=b"root",
    minimum_release="0.1.0",
    variant=Variant.LOCAL_VTPM,
)


@dataclass(frozen=True)
class Server:
    """Evidence of one JoinService's node, before and after it was given to its cluster."""

    ca: LocalCloudCa
    fresh: Evidence
    given: Evidence


async def _boot(folder: Path, document: bytes) -> Server:
    ca = LocalCloudCa()
    log, extends = local_vtpm.firmware_log(IMAGE, LINE, OS_RELEASE)
    async with swtpm(folder) as socket:
        async with await Tpm.connect(socket) as tpm:
            await local_vtpm.manufacture(tpm, ca.certify)
            for number, digest in extends:
                await tpm.extend(number, digest)
        (folder / "firmware").write_bytes(log)
        await local_vtpm.measure_node_document(
            socket, document, firmware_log=folder / "firmware", event_log=folder / "log"
        )
        async with await Tpm.connect(socket) as tpm:
            attester = local_vtpm.LocalVtpmAttester(tpm, folder / "log")
            fresh = await attester.attest(BINDING)
            await local_vtpm.give_to_cluster(tpm, CLUSTER_ID, event_log=folder / "log")
            return Server(ca, fresh, await attester.attest(BINDING))


def boot(document: NodeDocument) -> Server:
    with tempfile.TemporaryDirectory(prefix="judge") as folder:
        return asyncio.run(_boot(Path(folder), dump_node_document(document)))


@pytest.fixture(scope="module")
def server() -> Server:
    return boot(DOCUMENT)


def policy(server: Server, *, image: bytes = IMAGE, serial: int = 3) -> ClusterPolicy:
    _, extends = local_vtpm.firmware_log(image, LINE, OS_RELEASE)
    release = AcceptedRelease(
        name="0.1.0",
        not_before=0,
        not_after=None,
        image_digest=image,
        reference={number: (value,) for number, value in predicted_pcrs(extends).items()},
    )
    return ClusterPolicy(
        cluster_id=CLUSTER_ID,
        serial=serial,
        releases=(release,),
        trust_roots=(server.ca.root,),
        artifact_lists={"v1.36.2": bytes(32)},
        services_bundle=bytes(32),
        kubernetes_version="v1.36.2",
        join_public_key=spki(JOIN.public_key()),
    )


def shown(server: Server) -> Shown:
    return Shown(
        evidence=server.given,
        binding=BINDING,
        policy=sign_policy(policy(server), OWNER),
        channel_signature=prove_join_channel(JOIN, exporter=EXPORTER, cluster_id=CLUSTER_ID),
        exporter=EXPORTER,
    )


def judge(what: Shown, *, document: NodeDocument = DOCUMENT, minimum_serial: int = 1) -> int:
    return judge_join_server(
        what, document=document, minimum_serial=minimum_serial, now=NOW
    ).policy.serial


def test_a_join_service_of_this_cluster_is_believed(server: Server) -> None:
    assert judge(shown(server)) == 3


def test_a_policy_that_the_owner_did_not_sign_is_untrusted(server: Server) -> None:
    forged = replace(shown(server), policy=sign_policy(policy(server), STRANGER))
    with pytest.raises(Untrusted, match="signature"):
        judge(forged)


def test_an_older_policy_than_one_seen_is_untrusted(server: Server) -> None:
    with pytest.raises(Untrusted, match="serial 3"):
        judge(shown(server), minimum_serial=4)


def test_a_server_without_the_join_key_is_untrusted(server: Server) -> None:
    proof = prove_join_channel(STRANGER, exporter=EXPORTER, cluster_id=CLUSTER_ID)
    with pytest.raises(Untrusted, match="signature"):
        judge(replace(shown(server), channel_signature=proof))


def test_a_proof_for_another_channel_is_untrusted(server: Server) -> None:
    with pytest.raises(Untrusted, match="signature"):
        judge(replace(shown(server), exporter=hashlib.sha256(b"relayed").digest()))


def test_evidence_for_another_channel_is_untrusted(server: Server) -> None:
    with pytest.raises(Untrusted):
        judge(replace(shown(server), binding=Binding(hashlib.sha512(b"other").digest())))


def test_evidence_of_another_variant_is_untrusted(server: Server) -> None:
    other = Evidence(variant=Variant.QEMU_VTPM, data=server.given.data)
    with pytest.raises(Untrusted, match="variant"):
        judge(replace(shown(server), evidence=other))


def test_a_machine_of_another_cloud_is_untrusted(server: Server) -> None:
    foreign = replace(policy(server), trust_roots=(LocalCloudCa().root,))
    with pytest.raises(Untrusted):
        judge(replace(shown(server), policy=sign_policy(foreign, OWNER)))


def test_a_server_with_another_image_is_refused(server: Server) -> None:
    other = policy(server, image=hashlib.sha256(b"changed").digest())
    with pytest.raises(Rejected, match="pcr4"):
        judge(replace(shown(server), policy=sign_policy(other, OWNER)))


def test_a_server_that_is_in_no_cluster_is_refused(server: Server) -> None:
    with pytest.raises(Rejected, match="pcr15"):
        judge(replace(shown(server), evidence=server.fresh))


def test_a_server_with_another_node_document_is_refused(server: Server) -> None:
    elsewhere = boot(replace(DOCUMENT, minimum_release="0.0.1"))
    what = replace(
        shown(elsewhere),
        policy=sign_policy(replace(policy(server), trust_roots=(elsewhere.ca.root,)), OWNER),
    )
    with pytest.raises(Rejected, match="pcr8"):
        judge(what)


def test_evidence_that_cannot_be_read_is_a_format_error(server: Server) -> None:
    junk = Evidence(variant=Variant.LOCAL_VTPM, data=b"{}")
    with pytest.raises(FormatError):
        judge(replace(shown(server), evidence=junk))
