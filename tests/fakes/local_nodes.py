"""Local nodes with a software TPM each: a ChannelAttester whose quotes are real."""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from constellation.atls.binding import channel_binding
from constellation.attestation import registry
from constellation.attestation.model import AttestationResult, Binding, Evidence, Variant
from constellation.attestation.platforms import local_vtpm
from constellation.attestation.platforms.local_vtpm_log import predicted_pcrs
from constellation.attestation.tpm.device import Tpm
from tests.fakes.tpm import NOW, LocalCloudCa, swtpm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from constellation.attestation.model import Attester

DOCUMENT = b'{"clusterID":"a node document"}'
IMAGE = hashlib.sha256(b"node image").digest()
_LINE = "constellation.provider=local constellation.variant=local-vtpm"
_OS_RELEASE = b"ID=constellation\n"


class LocalNode:
    """A powered, measured node that was not given to a cluster yet."""

    variant = Variant.LOCAL_VTPM

    def __init__(self, attester: Attester) -> None:
        self._attester = attester

    async def attest(
        self, *, purpose: str, exporter: bytes, spki_digest: bytes, peer_nonce: bytes
    ) -> Evidence:
        return await self._attester.attest(
            channel_binding(
                purpose=purpose,
                variant=self.variant,
                exporter=exporter,
                spki_digest=spki_digest,
                peer_nonce=peer_nonce,
            )
        )


@asynccontextmanager
async def local_node(
    folder: Path, *, ca: LocalCloudCa, image: bytes = IMAGE
) -> AsyncIterator[LocalNode]:
    """Manufacture a node's TPM, power it on with `image`, measure the node document."""
    folder.mkdir(parents=True, exist_ok=True)
    async with swtpm(folder) as socket:
        log, extends = local_vtpm.firmware_log(image, _LINE, _OS_RELEASE)
        async with await Tpm.connect(socket) as tpm:
            await local_vtpm.manufacture(tpm, ca.certify)
            for number, digest in extends:
                await tpm.extend(number, digest)
        (folder / "firmware").write_bytes(log)
        await local_vtpm.measure_node_document(
            socket, DOCUMENT, firmware_log=folder / "firmware", event_log=folder / "log"
        )
        async with await Tpm.connect(socket) as tpm:
            yield LocalNode(
                registry.attester(
                    Variant.LOCAL_VTPM,
                    registry.NodeDevices(tpm=tpm, event_log=folder / "log", cache=folder),
                )
            )


def appraiser(ca: LocalCloudCa) -> Callable[[Evidence, Binding], AttestationResult]:
    """Accept nodes of this cloud that booted `IMAGE` with `DOCUMENT` and are in no cluster."""
    _, extends = local_vtpm.firmware_log(IMAGE, _LINE, _OS_RELEASE)
    policy = local_vtpm.policy(
        {number: (value,) for number, value in predicted_pcrs(extends).items()},
        node_document_digest=hashlib.sha256(DOCUMENT).digest(),
        cluster_id=None,
    )
    verifier = registry.verifier(Variant.LOCAL_VTPM, policy=policy, trust_roots=(ca.root,))

    def appraise(evidence: Evidence, binding: Binding) -> AttestationResult:
        return verifier.appraise(evidence, binding=binding, now=NOW)

    return appraise
