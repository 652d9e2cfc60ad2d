"""The policy of a folder is exactly ours."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from constellation.base.errors import FormatError
from constellation.base.secret import Secret
from constellation.disk.fscrypt import Policy, key_identifier, our_policy

KEY = Secret(bytes(range(64)))


def test_a_key_is_named_by_hkdf_sha512_of_itself() -> None:
    # RFC 5869 by hand: extract with a zero salt, one block of expand
    extracted = hmac.digest(bytes(64), KEY.reveal(), "sha512")
    expanded = hmac.new(extracted, b"fscrypt\0\x01" + b"\x01", hashlib.sha512).digest()
    assert key_identifier(KEY) == expanded[:16]


def test_our_policy_has_the_layout_of_the_kernel() -> None:
    packed = our_policy(KEY).pack()
    assert packed == bytes([2, 1, 4, 3, 0, 0, 0, 0]) + key_identifier(KEY)
    assert Policy.parse(packed) == our_policy(KEY)


def test_a_reserved_byte_in_a_policy_is_refused() -> None:
    with pytest.raises(FormatError):
        Policy.parse(bytes([2, 1, 4, 3, 0, 1, 0, 0]) + bytes(16))


def test_a_key_of_another_size_is_a_bug() -> None:
    with pytest.raises(ValueError, match="32 bytes, want 64"):
        our_policy(Secret(bytes(32)))
