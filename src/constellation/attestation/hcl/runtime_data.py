"""What Azure's paravisor says about its VM: the vTPM's keys and how the VM was configured.

JSON with `keys` (RFC 7517 JWKs; `HCLAkPub` is the vTPM's attestation key), `vm-configuration` and
`user-data` (64 bytes in hexadecimal that the guest may set through NV index 0x01400002; paravisors
of 2023 do not have it yet).
Source: Microsoft, "Azure confidential VMs: guest attestation, runtime claims"; RFC 7517, RFC 7518
section 6.3.1. Trusted only after `report.runtime_data_of` has bound the bytes to a chip's report,
and then as far as the paravisor is: it made the AK, restricted and fixedTPM, in its own vTPM.
"""

from __future__ import annotations

import base64
import binascii
import json
import string
from dataclasses import dataclass
from typing import Self

from cryptography.hazmat.primitives.asymmetric import rsa

from constellation.base.errors import FormatError

__all__ = ["AK_KEY_ID", "RuntimeData", "VmConfiguration"]

AK_KEY_ID = "HCLAkPub"

_MAX_BYTES = 16 * 1024
_AK_OPERATIONS = (["sign"], ["encrypt"])
"""Older images mark the AK `encrypt`, as they do the EK; the key is the same restricted one."""
_BASE64URL = frozenset(string.ascii_letters + string.digits + "-_")
_USER_DATA_BYTES = 64
_MIN_RSA_BITS, _MAX_RSA_BITS = 2048, 4096
_EXPONENT = 65537


@dataclass(frozen=True, slots=True, kw_only=True)
class VmConfiguration:
    """`vm-configuration`. `tpm_persisted` is None where the image is too old to say."""

    console_enabled: bool
    secure_boot: bool
    tpm_enabled: bool
    tpm_persisted: bool | None
    root_cert_thumbprint: str
    vm_unique_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeData:
    """The AK, what the VM is, and the guest's 64 bytes of user data, empty in old images."""

    ak: rsa.RSAPublicKey
    configuration: VmConfiguration
    user_data: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the runtime data of an HCL report.

        Raises:
            FormatError: not such JSON, a field missing, no or several AKs, a weak key.
        """
        what = "runtime data"
        top = _object(_load(data), what)
        configuration = _object(top.get("vm-configuration"), f"{what}.vm-configuration")
        persisted = configuration.get("tpm-persisted")
        return cls(
            ak=_ak(top.get("keys")),
            configuration=VmConfiguration(
                console_enabled=_bool(configuration, "console-enabled"),
                secure_boot=_bool(configuration, "secure-boot"),
                tpm_enabled=_bool(configuration, "tpm-enabled"),
                tpm_persisted=None if persisted is None else _bool(configuration, "tpm-persisted"),
                root_cert_thumbprint=_text(configuration, "root-cert-thumbprint", default=""),
                vm_unique_id=_text(configuration, "vmUniqueId", default=None),
            ),
            user_data=_user_data(_text(top, "user-data", default=None))
            if "user-data" in top
            else b"",
        )


def _load(data: bytes) -> object:
    if len(data) > _MAX_BYTES:
        raise FormatError(f"runtime data: {len(data)} bytes, at most {_MAX_BYTES} are read")

    def no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise FormatError("runtime data: duplicate key")
        return dict(pairs)

    try:
        return json.loads(data.decode("utf-8", "strict"), object_pairs_hook=no_duplicates)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise FormatError(f"runtime data: not JSON: {error}") from None


def _ak(keys: object) -> rsa.RSAPublicKey:
    if not isinstance(keys, list):
        raise FormatError(f"runtime data.keys: {type(keys).__name__}, want list")
    found = [k for k in keys if isinstance(k, dict) and k.get("kid") == AK_KEY_ID]
    if len(found) != 1:
        raise FormatError(f"runtime data.keys: {len(found)} keys {AK_KEY_ID}, want 1")
    (jwk,) = found
    if jwk.get("kty") != "RSA" or jwk.get("key_ops") not in _AK_OPERATIONS:
        raise FormatError(f"runtime data: {AK_KEY_ID} is {jwk.get('kty')} for {jwk.get('key_ops')}")
    n, e = _number(jwk, "n"), _number(jwk, "e")
    if e != _EXPONENT or not _MIN_RSA_BITS <= n.bit_length() <= _MAX_RSA_BITS:
        raise FormatError(f"runtime data: {AK_KEY_ID} has {n.bit_length()} bits, exponent {e}")
    try:
        return rsa.RSAPublicNumbers(e, n).public_key()
    except ValueError as error:
        raise FormatError(f"runtime data: {AK_KEY_ID} is not a key: {error}") from None


def _number(jwk: dict[str, object], field: str) -> int:
    text = _text(jwk, field, default=None)
    if not _BASE64URL.issuperset(text):
        raise FormatError(f"runtime data: {AK_KEY_ID}.{field} is not base64url")
    try:
        number = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        raise FormatError(f"runtime data: {AK_KEY_ID}.{field} is not base64url") from None
    return int.from_bytes(number, "big")


def _object(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise FormatError(f"{where}: {type(value).__name__}, want object")
    return value


def _bool(where: dict[str, object], field: str) -> bool:
    value = where.get(field)
    if not isinstance(value, bool):
        raise FormatError(f"runtime data: {field} is {type(value).__name__}, want true or false")
    return value


def _text(where: dict[str, object], field: str, *, default: str | None) -> str:
    value = where.get(field, default)
    if not isinstance(value, str):
        raise FormatError(f"runtime data: {field} is {type(value).__name__}, want text")
    return value


def _user_data(text: str) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != _USER_DATA_BYTES or len(text) != 2 * _USER_DATA_BYTES:
        raise FormatError("runtime data: user-data is not 64 bytes in hexadecimal")
    return found
