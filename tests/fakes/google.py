"""Google: an authority that certifies the AKs of its instances' vTPMs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from constellation.attestation.google.certificate import INSTANCE_INFO_OID
from tests.fakes.certificates import Authority, make

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography import x509

__all__ = ["GoogleWorld", "instance_information"]


class GoogleWorld:
    """Root and intermediate; `certify` as GCE does when it makes an instance."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.root = Authority.root("EK/AK CA Root", now=now)
        self.intermediate = self.root.authority("EK/AK CA Intermediate", now=now)

    @property
    def roots(self) -> tuple[x509.Certificate, ...]:
        return (self.root.certificate,)

    @property
    def intermediates(self) -> tuple[x509.Certificate, ...]:
        return (self.intermediate.certificate,)

    def certify(
        self,
        public_key: Any,
        *,
        instance_name: str = "node-1",
        bare: bool = False,
        extension: bytes | None = b"given",
        **how: Any,
    ) -> x509.Certificate:
        """Certify a key; `extension` other than "given" replaces the instance's."""
        info = (
            instance_information(instance_name, bare=bare) if extension == b"given" else extension
        )
        extensions = () if info is None else ((INSTANCE_INFO_OID.dotted_string, info),)
        return make(
            "1234567890",
            public_key,
            issuer=self.intermediate,
            now=self.now,
            extensions=extensions,
            **how,
        )


def instance_information(name: str, *, bare: bool = False) -> bytes:
    """Write the extension's value by hand, DER."""
    fields = _tlv(0x0C, b"europe-west4-a") + _tlv(0x02, b"\x1b") + _tlv(0x0C, b"project")
    fields += _tlv(0x02, (1234567890).to_bytes(4, "big")) + _tlv(0x0C, name.encode())
    if not bare:
        said = _tlv(0xA0, _tlv(0x02, b"\0")) + _tlv(0xA1, _tlv(0x01, b"\xff"))
        fields += _tlv(0xA0, _tlv(0x30, said))
    return _tlv(0x30, fields)


def _tlv(tag: int, value: bytes) -> bytes:
    return bytes([tag, len(value)]) + value
