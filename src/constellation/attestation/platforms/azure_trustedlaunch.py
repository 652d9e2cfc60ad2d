"""Variant `azure-trustedlaunch`: Microsoft certifies the AK of the hypervisor's vTPM.

Who is believed: Microsoft and the hypervisor, for everything: memory is not encrypted. What this
variant gives is a measured boot that a stolen disk or a changed image does not pass.

The verifier's procedure:
 1. The evidence is one canonical JSON document of the fields of `AzureTrustedLaunchEvidence`.
 2. The AK's certificate (NV index 0x01C101D0; may be padded with zeros) leads to one of the given
    roots, and says that it is for an AK: key usage digitalSignature, extended key usage
    tcg-kp-AIKCertificate (2.23.133.8.3).
 3. The AK's public area has the certified key and makes it an AK.
 4. The quote is that AK's, over SHA-256 of the binding and PCR 0 to 15; the event log replays.
 5. The claims pass the policy; registers are explained.

Revocation is not checked: Microsoft's lists are not published with the evidence; AK certificates
live one year. The result says so. Sources: Microsoft, "Trusted launch FAQ: certificates"; TCG
Credential Profile EK 2.5; RFC 5280; TCG TPM 2.0 Library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from constellation.attestation import chain
from constellation.attestation.model import AttestationResult, Binding, Evidence, Variant
from constellation.attestation.platforms import vtpm
from constellation.attestation.policy import Unchecked
from constellation.attestation.roots import microsoft
from constellation.attestation.tpm.structures import Alg
from constellation.base.errors import FormatError, Untrusted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from constellation.attestation.policy import Policy

__all__ = [
    "WARNING",
    "AzureTrustedLaunchEvidence",
    "AzureTrustedLaunchVerifier",
    "policy",
    "unpadded",
    "verify_ak_certificate",
]

WARNING = "azure-trustedlaunch is not confidential: Azure's hypervisor can read the nodes' memory"

_AIK_CERTIFICATE = x509.ObjectIdentifier("2.23.133.8.3")
_MIN_RSA_BITS = 2048
_MAX_NV_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureTrustedLaunchEvidence:
    """What a node sends; untrusted. `ak_chain`: intermediates (DER) that the verifier may lack."""

    tpm: vtpm.TpmPart
    ak_certificate: bytes
    ak_chain: tuple[bytes, ...]


def unpadded(nv_content: bytes) -> bytes:
    """Give the certificate of an NV index that may be longer: DER's own length, then only zeros.

    Raises:
        FormatError: no DER sequence, or something else than zeros after it.
    """
    if len(nv_content) > _MAX_NV_BYTES:
        raise FormatError(f"AK certificate: {len(nv_content)} bytes, at most {_MAX_NV_BYTES}")
    if nv_content[:2] != b"\x30\x82":  # X.690: SEQUENCE, length in two bytes
        raise FormatError("AK certificate: not a DER sequence of 256 to 65535 bytes")
    end = 4 + int.from_bytes(nv_content[2:4], "big")
    if end > len(nv_content) or any(nv_content[end:]):
        raise FormatError(f"AK certificate: {len(nv_content)} bytes, but it has {end} and no zeros")
    return nv_content[:end]


def verify_ak_certificate(
    nv_content: bytes,
    *,
    intermediates: tuple[x509.Certificate, ...],
    roots: tuple[x509.Certificate, ...],
    now: datetime,
) -> rsa.RSAPublicKey:
    """Verify step 2; gives the certified key.

    Raises:
        FormatError: not a certificate.
        Untrusted: the first check that fails.
    """
    what = "AK certificate"
    certificate = chain.load(unpadded(nv_content), what=what)
    chain.verify(certificate, intermediates=intermediates, roots=roots, now=now, what=what)
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound as error:
        raise Untrusted(f"{what}: {error.oid.dotted_string} is missing") from None
    if not usage.digital_signature or usage.key_cert_sign or _AIK_CERTIFICATE not in purposes:
        raise Untrusted(f"{what}: it is not for an AK")
    key = chain.public_key(certificate)
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < _MIN_RSA_BITS:
        raise Untrusted(f"{what}: its key is not RSA of {_MIN_RSA_BITS} bits or more")
    return key


def policy(
    reference: Mapping[int, tuple[bytes, ...]],
    *,
    node_document_digest: bytes,
    cluster_id: bytes | None,
) -> Policy:
    """Give the rules for a node; arguments as in `vtpm.register_rules`."""
    rules = vtpm.register_rules(
        reference, node_document_digest=node_document_digest, cluster_id=cluster_id
    )
    revocation = Unchecked("Microsoft's lists do not come with the evidence")
    return {**rules, **vtpm.TPM_RULES, "ak.revocation_checked": revocation}


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureTrustedLaunchVerifier:
    """Verifies and appraises `azure-trustedlaunch` evidence; `trust_roots` are Microsoft's."""

    policy: Policy
    trust_roots: tuple[bytes, ...]

    def appraise(self, evidence: Evidence, *, binding: Binding, now: datetime) -> AttestationResult:
        """Run the procedure above; see `Verifier` for what it raises."""
        variant = Variant.AZURE_TRUSTEDLAUNCH
        document = vtpm.open_evidence(AzureTrustedLaunchEvidence, evidence, variant=variant)
        given = (*document.ak_chain, *microsoft.INTERMEDIATES)
        ak = verify_ak_certificate(
            document.ak_certificate,
            intermediates=tuple(chain.load(der, what="AK chain") for der in given),
            roots=tuple(chain.load(der, what="root") for der in self.trust_roots),
            now=now,
        )
        tpm = vtpm.verify_tpm(document.tpm, ak=ak, binding=binding)
        claims = {**tpm.claims, "ak.revocation_checked": 0}
        return AttestationResult(
            variant=variant,
            attester_id=tpm.attester_id,
            claims=claims,
            unchecked=vtpm.require(self.policy, claims, log=tpm.log, bank=Alg.SHA256),
            warnings=(WARNING,),
        )
