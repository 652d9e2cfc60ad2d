"""Which verifier and attester belong to a variant: one table, no registration at import time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.attestation.model import Variant
from constellation.attestation.platforms.local_vtpm import LocalVtpmAttester, LocalVtpmVerifier
from constellation.base.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from constellation.attestation.model import Attester, Verifier
    from constellation.attestation.policy import Policy
    from constellation.attestation.tpm.device import Tpm

__all__ = ["attester", "verifier"]


def _local_vtpm_verifier(policy: Policy, trust_roots: tuple[bytes, ...]) -> Verifier:
    return LocalVtpmVerifier(policy=policy, trust_roots=trust_roots)


def _local_vtpm_attester(tpm: Tpm, event_log: Path) -> Attester:
    return LocalVtpmAttester(tpm, event_log)


_VERIFIERS: Mapping[Variant, Callable[[Policy, tuple[bytes, ...]], Verifier]] = {
    Variant.LOCAL_VTPM: _local_vtpm_verifier,
}
_ATTESTERS: Mapping[Variant, Callable[[Tpm, Path], Attester]] = {
    Variant.LOCAL_VTPM: _local_vtpm_attester,
}


def verifier(variant: Variant, *, policy: Policy, trust_roots: tuple[bytes, ...]) -> Verifier:
    """Make the verifier of a variant; `trust_roots` are the provider's authorities (DER).

    Raises:
        UserError: this release cannot verify the variant.
    """
    make = _VERIFIERS.get(variant)
    if make is None:
        raise UserError(f"variant {variant}: expected one of {', '.join(sorted(_VERIFIERS))}")
    return make(policy, trust_roots)


def attester(variant: Variant, *, tpm: Tpm, event_log: Path) -> Attester:
    """Make the attester of a variant with a TPM; `event_log` is this boot's log.

    Raises:
        UserError: this release cannot attest with the variant.
    """
    make = _ATTESTERS.get(variant)
    if make is None:
        raise UserError(f"variant {variant}: expected one of {', '.join(sorted(_ATTESTERS))}")
    return make(tpm, event_log)
