"""What does a node measure of itself, and into which bank? Two events, by variant (pure).

PCR 8: the node document, before the node talks to any peer; PCR 15: the clusterID, once it was
given to the cluster. The digest is the bank's hash of the data alone; the event has the data, under
a tag of ours. Source: design, section 6; seams, "PCRs of the local flavour".
"""

from __future__ import annotations

from constellation.attestation.model import Variant
from constellation.attestation.tpm import pcr
from constellation.attestation.tpm.eventlog import Event, EventType, TaggedEvent
from constellation.attestation.tpm.replay import CLUSTER_ID_TAG, NODE_DOCUMENT_TAG
from constellation.attestation.tpm.structures import Alg

__all__ = ["CLUSTER_PCR", "DOCUMENT_PCR", "bank_of", "cluster_event", "document_event"]

DOCUMENT_PCR = 8
CLUSTER_PCR = 15

_SHA384 = frozenset({Variant.AWS_NITRO_TPM, Variant.AWS_SEV_SNP})


def bank_of(variant: Variant) -> Alg:
    """Say which bank the variant's evidence carries: NitroTPM documents have SHA-384 alone."""
    return Alg.SHA384 if variant in _SHA384 else Alg.SHA256


def document_event(document: bytes, *, bank: Alg) -> Event:
    """Give the event of the node document (PCR 8): its digest is the document's."""
    return _event(DOCUMENT_PCR, NODE_DOCUMENT_TAG, document, bank)


def cluster_event(cluster_id: bytes, *, bank: Alg) -> Event:
    """Give the event of the clusterID (PCR 15): its digest is that of the 32 bytes."""
    return _event(CLUSTER_PCR, CLUSTER_ID_TAG, cluster_id, bank)


def _event(number: int, tag: int, data: bytes, bank: Alg) -> Event:
    return Event(
        pcr=number,
        type=EventType.EV_EVENT_TAG,
        digests=((bank, pcr.digest_of(bank, data)),),
        data=TaggedEvent(tag=tag, data=data).pack(),
    )
