"""Native file encryption of Linux: a key goes to the file system, a policy to an empty folder.

Source: Linux, Documentation/filesystems/fscrypt.rst and include/uapi/linux/fscrypt.h; policies of
version 2 only, AES-256-XTS for contents and AES-256-CTS for names. What it gives: contents and
names below the folder are ciphertext on the device. What it does not: authenticity (a changed
block decrypts to something else), nor does it hide sizes, times and the shape of the tree.
"""

from __future__ import annotations

import errno
import fcntl
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from constellation.base.binary import Layout, Order, Writer, at
from constellation.base.errors import Rejected, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.base.secret import Secret

__all__ = [
    "KEY_BYTES",
    "Policy",
    "add_key",
    "key_identifier",
    "our_policy",
    "protect",
    "read_policy",
    "require_policy",
]

KEY_BYTES = 64
"""Size of a raw key: AES-256-XTS takes 64 bytes (fscrypt.rst, "Encryption modes and usage")."""

# fscrypt.h; the number encodes direction, size of the argument and "f" (ioctl.h)
_SET_POLICY = 0x800C6613
_GET_POLICY_EX = 0xC0096616
_ADD_KEY = 0xC0506617

_CONTENTS_AES_256_XTS = 1
_NAMES_AES_256_CTS = 4
_PAD_32 = 3
_SPECIFIER_IDENTIFIER = 2
_VERSION_2 = 2
_IDENTIFIER_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy(Layout):
    """What a folder is encrypted with: struct fscrypt_policy_v2 (fscrypt.h), 24 bytes."""

    SIZE: ClassVar[int] = 24
    ORDER: ClassVar[Order] = "little"

    version: int = at(0, 1, integer=True)
    contents_encryption_mode: int = at(1, 1, integer=True)
    filenames_encryption_mode: int = at(2, 1, integer=True)
    flags: int = at(3, 1, integer=True)
    log2_data_unit_size: int = at(4, 1, integer=True)
    master_key_identifier: bytes = at(8, 16)


def key_identifier(key: Secret) -> bytes:
    """Compute the 16 bytes by which the kernel names `key` (fscrypt.rst, "Key hashing").

    HKDF-SHA512 without salt, info = "fscrypt" ‖ 0 ‖ 1 (HKDF_CONTEXT_KEY_IDENTIFIER).
    """
    hkdf = HKDF(algorithm=SHA512(), length=_IDENTIFIER_BYTES, salt=None, info=b"fscrypt\0\x01")
    return hkdf.derive(key.reveal())


def our_policy(key: Secret) -> Policy:
    """Give the one policy that a folder of ours may have."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key of {len(key)} bytes, want {KEY_BYTES}")
    return Policy(
        version=_VERSION_2,
        contents_encryption_mode=_CONTENTS_AES_256_XTS,
        filenames_encryption_mode=_NAMES_AES_256_CTS,
        flags=_PAD_32,
        log2_data_unit_size=0,
        master_key_identifier=key_identifier(key),
    )


def add_key(mount_point: Path, key: Secret) -> None:
    """Give `key` (64 bytes) to the file system mounted at `mount_point`, until it is unmounted.

    Raises:
        Unavailable: the kernel or the file system cannot encrypt, or refuses the key.
        Rejected: the kernel names the key otherwise than the specification says.
    """
    # struct fscrypt_add_key_arg: specifier(type u32, reserved u32, 32 bytes), raw_size u32,
    # key_id u32, reserved 32 bytes, raw[]
    argument = bytearray(
        Writer(order="little")
        .number(_SPECIFIER_IDENTIFIER, 4)
        .raw(bytes(36))
        .number(len(key), 4)
        .raw(bytes(36))
        .raw(key.reveal())
        .done()
    )
    try:
        _ioctl(mount_point, _ADD_KEY, argument, what="adding the disk key")
        found = bytes(argument[8 : 8 + _IDENTIFIER_BYTES])
    finally:
        argument[:] = bytes(len(argument))
    if found != (expected := key_identifier(key)):
        raise Rejected((f"disk key: the kernel calls it {found.hex()}, want {expected.hex()}",))


def read_policy(folder: Path) -> Policy | None:
    """Read the policy of `folder`; None if it is not encrypted.

    Raises:
        FormatError: a policy of another version than 2.
        Unavailable: the kernel or the file system cannot encrypt.
    """
    # struct fscrypt_get_policy_ex_arg: policy_size u64 (in: room, out: size), policy
    argument = bytearray(Writer(order="little").number(Policy.SIZE, 8).raw(bytes(24)).done())
    try:
        _ioctl(folder, _GET_POLICY_EX, argument, what="reading the encryption policy")
    except _NoPolicy:
        return None
    size = int.from_bytes(argument[:8], "little")
    return Policy.parse(bytes(argument[8 : 8 + size]))


def protect(folder: Path, key: Secret) -> None:
    """Encrypt the empty `folder` with `key`, which the file system has already.

    Raises:
        Unavailable: the kernel refuses (the folder is not empty, the key is not there).
        Rejected: what the kernel then reports is not what was asked for.
    """
    policy = our_policy(key)
    _ioctl(folder, _SET_POLICY, bytearray(policy.pack()), what="setting the encryption policy")
    require_policy(folder, policy)


def require_policy(folder: Path, policy: Policy) -> None:
    """Check that `folder` has exactly `policy`: version, modes, flags and key identifier.

    Raises:
        Rejected: with everything that differs.
    """
    found = read_policy(folder)
    if found is None:
        raise Rejected((f"{folder}: not encrypted, want an fscrypt policy of version 2",))
    differences = tuple(
        f"{folder}: {name} is {_show(getattr(found, name))}, want {_show(getattr(policy, name))}"
        for name in (
            "version",
            "contents_encryption_mode",
            "filenames_encryption_mode",
            "flags",
            "log2_data_unit_size",
            "master_key_identifier",
        )
        if getattr(found, name) != getattr(policy, name)
    )
    if differences:
        raise Rejected(differences, hint="this is not the disk that the key belongs to")


class _NoPolicy(Unavailable):
    """The folder has no encryption policy (ENODATA)."""


def _ioctl(path: Path, request: int, argument: bytearray, *, what: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.ioctl(handle, request, argument, True)
    except OSError as error:
        if error.errno == errno.ENODATA:
            raise _NoPolicy(f"{path} is not encrypted") from None
        hint = ""
        if error.errno in (errno.EOPNOTSUPP, errno.ENOTTY):
            hint = "the kernel needs FS_ENCRYPTION and the file system the feature `encrypt`"
        raise Unavailable(f"{what} at {path}: {error.strerror}", hint=hint) from error
    finally:
        os.close(handle)


def _show(value: int | bytes) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
