"""Genuine machines of two clusters of one cloud: real TPMs, real quotes, the same image."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from constellation.atls.binding import channel_binding
from constellation.attestation.model import Variant
from constellation.attestation.platforms import local_vtpm
from constellation.attestation.platforms.local_vtpm_log import predicted_pcrs
from constellation.attestation.tpm.device import Tpm
from constellation.base.secret import Secret
from constellation.crypto import derive
from constellation.crypto.signing import generate_key, spki
from constellation.trust.cluster_policy import AcceptedRelease, ClusterPolicy, sign_policy
from constellation.trust.node_document import NodeDocument, dump_node_document
from tests.fakes.members import ARTIFACT_LIST
from tests.fakes.tpm import LocalCloudCa, swtpm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric import ec

    from constellation.attestation.model import Evidence
    from constellation.trust.cluster_policy import SignedPolicy

LINE = "constellation.provider=local constellation.variant=local-vtpm"
OS_RELEASE = b"ID=constellation\n"
IMAGE = hashlib.sha256(b"node image").digest()
CA = LocalCloudCa()
"""One cloud: machines of all clusters have AKs that it certified."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Owner key, join key and document of one cluster of this cloud, all of the same image."""

    name: str
    owner: ec.EllipticCurvePrivateKey = field(default_factory=generate_key)
    join: ec.EllipticCurvePrivateKey = field(default_factory=generate_key)
    owners: derive.MasterSecret | None = None

    @property
    def master(self) -> derive.MasterSecret:
        if self.owners is not None:
            return self.owners
        key, salt = (hashlib.sha256(f"{self.name} {w}".encode()).digest() for w in ("key", "salt"))
        return derive.MasterSecret(key=Secret(key), salt=Secret(salt))

    @property
    def document(self) -> NodeDocument:
        return NodeDocument(
            version=1,
            cluster_id=derive.cluster_id(self.master),
            owner_public_key=spki(self.owner.public_key()),
            release_root=b"root",
            minimum_release="0.1.0",
            variant=Variant.LOCAL_VTPM,
        )

    def policy(self, *, serial: int = 2, images: tuple[bytes, ...] = (IMAGE,)) -> SignedPolicy:
        policy = ClusterPolicy(
            cluster_id=self.document.cluster_id,
            serial=serial,
            releases=tuple(release_of(image) for image in images),
            trust_roots=(CA.root,),
            artifact_lists={"v1.36.2": hashlib.sha256(ARTIFACT_LIST).digest()},
            services_bundle=bytes(32),
            kubernetes_version="v1.36.2",
            join_public_key=spki(self.join.public_key()),
        )
        return sign_policy(policy, self.owner)


def release_of(image: bytes) -> AcceptedRelease:
    _, extends = local_vtpm.firmware_log(image, LINE, OS_RELEASE)
    return AcceptedRelease(
        name="0.1.0",
        not_before=0,
        not_after=None,
        image_digest=image,
        reference={number: (value,) for number, value in predicted_pcrs(extends).items()},
    )


OURS, OTHER = Cluster(name="ours"), Cluster(name="another")


class Node:
    """A genuine machine with a TPM of its own; attests for whatever purpose it is made for."""

    variant = Variant.LOCAL_VTPM

    def __init__(self, socket: Path, log: Path) -> None:
        self._socket, self._log = socket, log

    async def attest(
        self, *, purpose: str, exporter: bytes, spki_digest: bytes, peer_nonce: bytes
    ) -> Evidence:
        binding = channel_binding(
            purpose=purpose,
            variant=self.variant,
            exporter=exporter,
            spki_digest=spki_digest,
            peer_nonce=peer_nonce,
        )
        async with await Tpm.connect(self._socket) as tpm:
            return await local_vtpm.LocalVtpmAttester(tpm, self._log).attest(binding)

    async def attester_id(self) -> bytes:
        async with await Tpm.connect(self._socket) as tpm:
            return await local_vtpm.LocalVtpmAttester(tpm, self._log).attester_id()

    async def given_to_cluster(self) -> bool:
        async with await Tpm.connect(self._socket) as tpm:
            return await local_vtpm.is_given_to_cluster(tpm)

    async def give_to_cluster(self, cluster_id: bytes) -> None:
        async with await Tpm.connect(self._socket) as tpm:
            await local_vtpm.give_to_cluster(tpm, cluster_id, event_log=self._log)


@contextlib.asynccontextmanager
async def machine(
    folder: Path, *, cluster: Cluster = OURS, given: bool = True, image: bytes = IMAGE
) -> AsyncIterator[Node]:
    folder.mkdir()
    async with swtpm(folder) as socket:
        log, extends = local_vtpm.firmware_log(image, LINE, OS_RELEASE)
        (folder / "firmware").write_bytes(log)
        async with await Tpm.connect(socket) as tpm:
            await local_vtpm.manufacture(tpm, CA.certify)
            for number, digest in extends:
                await tpm.extend(number, digest)
        await local_vtpm.measure_node_document(
            socket,
            dump_node_document(cluster.document),
            firmware_log=folder / "firmware",
            event_log=folder / "log",
        )
        if given:
            async with await Tpm.connect(socket) as tpm:
                await local_vtpm.give_to_cluster(
                    tpm, cluster.document.cluster_id, event_log=folder / "log"
                )
        yield Node(socket, folder / "log")
