"""Tests of constellation.services.keyservice.envelope."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.base.errors import FormatError, Untrusted
from constellation.base.secret import Secret
from constellation.crypto.derive import MasterSecret
from constellation.services.keyservice.envelope import unwrap, wrap

MASTER = MasterSecret(key=Secret(bytes(range(32))), salt=Secret(bytes(range(32, 64))))
OTHER = MasterSecret(key=Secret(bytes(32)), salt=MASTER.salt)
NONCE = bytes(12)
WRAPPED = wrap(b"seed", master=MASTER, key_id="etcd/1", nonce=NONCE)


@given(st.binary(max_size=512), st.binary(min_size=12, max_size=12))
def test_what_is_wrapped_unwraps_to_the_same(plaintext: bytes, nonce: bytes) -> None:
    wrapped = wrap(plaintext, master=MASTER, key_id="etcd/7", nonce=nonce)
    assert unwrap(wrapped, master=MASTER, key_id="etcd/7") == plaintext


@given(st.integers(0, len(WRAPPED) * 8 - 1))
def test_any_flipped_bit_is_untrusted(bit: int) -> None:
    flipped = bytearray(WRAPPED)
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Untrusted):
        unwrap(bytes(flipped), master=MASTER, key_id="etcd/1")


def test_another_key_id_or_another_cluster_is_untrusted() -> None:
    with pytest.raises(Untrusted, match="etcd/2"):
        unwrap(WRAPPED, master=MASTER, key_id="etcd/2")
    with pytest.raises(Untrusted):
        unwrap(WRAPPED, master=OTHER, key_id="etcd/1")


@pytest.mark.parametrize("key_id", ["ssh-ca", "measurementSecret", "etcd/", "etcd/01", "volume/1"])
def test_no_other_kind_of_key_can_be_reached(key_id: str) -> None:
    with pytest.raises(FormatError, match="key id"):
        wrap(b"", master=MASTER, key_id=key_id, nonce=NONCE)
    with pytest.raises(FormatError, match="key id"):
        unwrap(WRAPPED, master=MASTER, key_id=key_id)


@given(st.binary(max_size=27))
def test_too_short_is_a_format_error(junk: bytes) -> None:
    with pytest.raises(FormatError):
        unwrap(junk, master=MASTER, key_id="etcd/1")


def test_a_plaintext_larger_than_any_key_is_refused() -> None:
    with pytest.raises(FormatError, match="513"):
        wrap(bytes(513), master=MASTER, key_id="etcd/1", nonce=NONCE)
