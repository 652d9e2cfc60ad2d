"""The default policy of every variant in words, one line a claim: for a security officer.

The reference values are stand-ins (their own register's number, repeated): a release brings the
real ones. Everything else is what a cluster gets. Golden files: `tests/golden/policy-VARIANT.txt`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from constellation.attestation import snp
from constellation.attestation.model import Variant
from constellation.attestation.platforms import (
    aws_nitro_tpm,
    aws_sev_snp,
    azure_sev_snp,
    azure_tdx,
    azure_trustedlaunch,
    gcp_sev_es,
    gcp_sev_snp,
    gcp_tdx,
    local_vtpm,
    qemu_sev_snp,
    qemu_tdx,
    qemu_vtpm,
    td,
)
from constellation.attestation.policy import OneOf, describe
from constellation.attestation.tdx.appraise import STRICT_STATUSES
from constellation.attestation.tpm import pcr
from constellation.attestation.tpm.structures import Alg

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from constellation.attestation.policy import Policy

__all__ = ["VARIANTS", "dump_default_policy"]

_STAND_IN = b"\xaa" * 48
_IMAGE = (4, 9, 11)
_TD: Mapping[str, Any] = {
    "statuses": STRICT_STATUSES,
    "minimum_tcb_evaluation": 1,
    "node_document_digest": b"\xdd" * 48,
    "cluster_id": None,
}


def _reference(bank: Alg) -> dict[int, tuple[bytes, ...]]:
    return {number: (bytes([number]) * pcr.digest_size(bank),) for number in _IMAGE}


def _document(bank: Alg) -> bytes:
    return b"\xdd" * pcr.digest_size(bank)


def _aws_nitro_tpm() -> Policy:
    bank = aws_nitro_tpm.BANK
    return aws_nitro_tpm.policy(
        _reference(bank), node_document_digest=_document(bank), cluster_id=None
    )


def _aws_sev_snp() -> Policy:
    bank = aws_nitro_tpm.BANK
    return aws_sev_snp.policy(
        _reference(bank),
        measurements=(_STAND_IN,),
        minimum_tcb=snp.MINIMUM_TCB,
        csp_ids=("CN=cc-REGION.amazonaws.com",),
        node_document_digest=_document(bank),
        cluster_id=None,
    )


def _azure_sev_snp() -> Policy:
    return azure_sev_snp.policy(
        _reference(Alg.SHA256),
        measurements=(),
        id_key_digests=(_STAND_IN,),
        minimum_tcb=snp.MINIMUM_TCB,
        node_document_digest=_document(Alg.SHA256),
        cluster_id=None,
    )


def _azure_tdx() -> Policy:
    return azure_tdx.policy(
        _reference(Alg.SHA256),
        mr_td=(_STAND_IN,),
        statuses=STRICT_STATUSES,
        minimum_tcb_evaluation=1,
        node_document_digest=_document(Alg.SHA256),
        cluster_id=None,
    )


def _azure_trustedlaunch() -> Policy:
    return azure_trustedlaunch.policy(
        _reference(Alg.SHA256), node_document_digest=_document(Alg.SHA256), cluster_id=None
    )


def _gcp_sev_es() -> Policy:
    return gcp_sev_es.policy(
        _reference(Alg.SHA256),
        project_ids=("PROJECT",),
        node_document_digest=_document(Alg.SHA256),
        cluster_id=None,
    )


def _gcp_sev_snp() -> Policy:
    return gcp_sev_snp.policy(
        _reference(Alg.SHA256),
        measurements=(_STAND_IN,),
        minimum_tcb=snp.MINIMUM_TCB,
        project_ids=("PROJECT",),
        node_document_digest=_document(Alg.SHA256),
        cluster_id=None,
    )


def _qemu_vtpm() -> Policy:
    return qemu_vtpm.policy(
        _reference(Alg.SHA256), node_document_digest=_document(Alg.SHA256), cluster_id=None
    )


def _gcp_tdx() -> Policy:
    return gcp_tdx.policy(
        dict.fromkeys(("rtmr1", "rtmr2"), (_STAND_IN,)),
        mr_td=OneOf((_STAND_IN,)),
        rtmr0=OneOf((_STAND_IN,)),
        **_TD,
    )


def _qemu_tdx() -> Policy:
    return qemu_tdx.policy(dict.fromkeys(td.IMAGE_REGISTERS, (_STAND_IN,)), **_TD)


def _qemu_sev_snp() -> Policy:
    return qemu_sev_snp.policy(
        measurements=(_STAND_IN,),
        minimum_tcb=snp.MINIMUM_TCB,
        node_document_digest=_document(Alg.SHA256),
    )


def _local_vtpm() -> Policy:
    reference = {number: (bytes([number]) * 32,) for number in (0, 4, 7, 9, 11)}
    return local_vtpm.policy(reference, node_document_digest=_document(Alg.SHA256), cluster_id=None)


_MAKERS: Mapping[Variant, Callable[[], Policy]] = {
    Variant.AWS_NITRO_TPM: _aws_nitro_tpm,
    Variant.AWS_SEV_SNP: _aws_sev_snp,
    Variant.AZURE_SEV_SNP: _azure_sev_snp,
    Variant.AZURE_TDX: _azure_tdx,
    Variant.AZURE_TRUSTEDLAUNCH: _azure_trustedlaunch,
    Variant.GCP_SEV_ES: _gcp_sev_es,
    Variant.GCP_SEV_SNP: _gcp_sev_snp,
    Variant.GCP_TDX: _gcp_tdx,
    Variant.LOCAL_VTPM: _local_vtpm,
    Variant.QEMU_SEV_SNP: _qemu_sev_snp,
    Variant.QEMU_TDX: _qemu_tdx,
    Variant.QEMU_VTPM: _qemu_vtpm,
}
VARIANTS = tuple(_MAKERS)


def dump_default_policy(variant: Variant) -> str:
    """Give the rules of one of `VARIANTS` for a node that has not joined yet, one line a claim."""
    return "".join(f"{line}\n" for line in describe(_MAKERS[variant]()))
