"""Whether Google certified a vTPM's key, as an AK or an EK, and for which instance.

1. The certificate leads to one of the given roots (`chain`).
2. It is a leaf, and its key usage is one thing: digitalSignature for an AK, keyEncipherment (RSA)
   or keyAgreement (EC) for an EK. Google's certificates differ in nothing else, so an EK's passes
   for no AK.
3. Its extension 1.3.6.1.4.1.11129.2.1.21 names the instance: zone, project, id, name; and what
   Google says of its host. A certificate without it is refused.

Both forms are read: those of Google's own authority (`tpm_ek_v1_cloud_host`, empty subject) and of
its Certificate Authority Service (`EK/AK CA`). Source: Google, "Verify the identity of Shielded VM
instances", GCE instance information extension; RFC 5280, section 4.2.1.3. Afterwards trusted: that
the key lives in the vTPM of that instance, restricted and fixedTPM, as far as Google is believed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Self

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from constellation.attestation import chain
from constellation.attestation.model import Authentic
from constellation.base.errors import FormatError, Untrusted

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["INSTANCE_INFO_OID", "CertifiedKey", "InstanceInfo", "Purpose", "verify"]

INSTANCE_INFO_OID = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.1.21")

_MIN_RSA_BITS = 2048
_MAX_TEXT = 256


class Purpose(StrEnum):
    """What the certified key is for."""

    AK = "attestation key"
    EK = "endorsement key"


@asn1.sequence
class _SecurityProperties:
    security_version: Annotated[int | None, asn1.Explicit(0)]
    is_production: Annotated[bool | None, asn1.Explicit(1)]
    tpm_data_always_encrypted: Annotated[bool | None, asn1.Explicit(2)]
    suspend_resume_always_encrypted: Annotated[bool | None, asn1.Explicit(3)]
    vmtd_always_encrypted: Annotated[bool | None, asn1.Explicit(4)]
    always_in_approved_nvdimm: Annotated[bool | None, asn1.Explicit(5)]


@asn1.sequence
class _InstanceInfo:
    zone: str
    project_number: int
    project_id: str
    instance_id: int
    instance_name: str
    security_properties: Annotated[_SecurityProperties | None, asn1.Explicit(0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceInfo:
    """The instance that a certificate was issued to; None where Google left a property out."""

    zone: str
    project_number: int
    project_id: str
    instance_id: int
    instance_name: str
    security_version: int | None
    is_production: bool | None
    tpm_data_always_encrypted: bool | None
    suspend_resume_always_encrypted: bool | None
    vmtd_always_encrypted: bool | None
    always_in_approved_nvdimm: bool | None

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the value of the extension.

        Raises:
            FormatError: not DER of that structure, or a name that is too long.
        """
        try:
            info = asn1.decode_der(_InstanceInfo, data)
            if asn1.encode_der(info) != data:
                raise FormatError("GCE instance information: not in DER")
        except ValueError as error:
            raise FormatError(f"GCE instance information: {error}") from None
        texts = (info.zone, info.project_id, info.instance_name)
        if any(len(text) > _MAX_TEXT for text in texts):
            raise FormatError(f"GCE instance information: a name of more than {_MAX_TEXT}")
        said = info.security_properties
        return cls(
            zone=info.zone,
            project_number=info.project_number,
            project_id=info.project_id,
            instance_id=info.instance_id,
            instance_name=info.instance_name,
            security_version=said.security_version if said else None,
            is_production=said.is_production if said else None,
            tpm_data_always_encrypted=said.tpm_data_always_encrypted if said else None,
            suspend_resume_always_encrypted=said.suspend_resume_always_encrypted if said else None,
            vmtd_always_encrypted=said.vmtd_always_encrypted if said else None,
            always_in_approved_nvdimm=said.always_in_approved_nvdimm if said else None,
        )

    @property
    def claims(self) -> dict[str, bytes | int]:
        """What the certificate says, as claims; absent properties are 0: nothing was promised."""
        return {
            "gce.zone": self.zone.encode(),
            "gce.project_number": self.project_number,
            "gce.project_id": self.project_id.encode(),
            "gce.instance_id": self.instance_id,
            "gce.instance_name": self.instance_name.encode(),
            "gce.security_version": self.security_version or 0,
            "gce.is_production": int(bool(self.is_production)),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifiedKey:
    """A key in an instance's vTPM."""

    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey
    spki: bytes
    instance: InstanceInfo


def verify(
    certificate: x509.Certificate,
    *,
    purpose: Purpose,
    intermediates: tuple[x509.Certificate, ...],
    roots: tuple[x509.Certificate, ...],
    now: datetime,
) -> Authentic[CertifiedKey]:
    """Verify a certificate of a GCE vTPM's key.

    Raises:
        FormatError: the extension does not follow its structure.
        Untrusted: the first check that fails.
    """
    what = f"GCE {purpose} certificate"
    chain.verify(certificate, intermediates=intermediates, roots=roots, now=now, what=what)
    _check_usage(certificate, purpose, what)
    try:
        extension = certificate.extensions.get_extension_for_oid(INSTANCE_INFO_OID).value
    except x509.ExtensionNotFound:
        raise Untrusted(f"{what}: it names no instance") from None
    if not isinstance(extension, x509.UnrecognizedExtension):
        raise FormatError(f"{what}: instance information is {type(extension).__name__}")
    key = chain.public_key(certificate)
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < _MIN_RSA_BITS:
            raise Untrusted(f"{what}: RSA of {key.key_size} bits, want {_MIN_RSA_BITS} or more")
    elif not isinstance(key, ec.EllipticCurvePublicKey):
        raise Untrusted(f"{what}: key is {type(key).__name__}, want RSA or EC")
    info = InstanceInfo.parse(extension.value)
    return Authentic(CertifiedKey(key=key, spki=chain.spki(certificate), instance=info))


def _check_usage(certificate: x509.Certificate, purpose: Purpose, what: str) -> None:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound as error:
        raise Untrusted(f"{what}: {error.oid.dotted_string} is missing") from None
    if basic.ca or usage.key_cert_sign:
        raise Untrusted(f"{what}: it is an authority's")
    signs, decrypts = usage.digital_signature, usage.key_encipherment or usage.key_agreement
    if (signs, decrypts) != (purpose is Purpose.AK, purpose is Purpose.EK):
        raise Untrusted(
            f"{what}: its key signs: {signs}, decrypts: {decrypts}; it is not an {purpose}"
        )
