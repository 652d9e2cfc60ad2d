"""The hash tree of dm-verity: its form, its root, and that every bit of the data is under it."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constellation.base.errors import FormatError
from constellation.disk.verity import BLOCK_BYTES, hash_tree

# cryptsetup 2.7.5: veritysetup format --no-superblock --salt=- of blocks(129)
VERITYSETUP = "f0dbc433d6188c4e8e30ee2de31ee90ab1edf2fd7438d97feab12f75375886ad"


def blocks(count: int) -> bytes:
    return b"".join(bytes([number % 251]) * BLOCK_BYTES for number in range(count))


def test_two_levels_lie_with_the_smaller_one_first() -> None:
    data = blocks(129)
    tree = hash_tree(data)
    digests = [hashlib.sha256(data[n * BLOCK_BYTES :][:BLOCK_BYTES]).digest() for n in range(129)]
    low = b"".join(digests).ljust(2 * BLOCK_BYTES, b"\0")
    high = b"".join(
        hashlib.sha256(low[n * BLOCK_BYTES :][:BLOCK_BYTES]).digest() for n in range(2)
    ).ljust(BLOCK_BYTES, b"\0")
    assert tree.blocks == high + low
    assert tree.root_digest == hashlib.sha256(high).digest()
    assert tree.data_blocks == 129


def test_the_root_is_what_veritysetup_makes() -> None:
    assert hash_tree(blocks(129)).root_digest.hex() == VERITYSETUP


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 130 * BLOCK_BYTES * 8 - 1))
def test_any_flipped_bit_is_another_root(bit: int) -> None:
    data = bytearray(blocks(130))
    whole = hash_tree(bytes(data)).root_digest
    data[bit // 8] ^= 1 << bit % 8
    assert hash_tree(bytes(data)).root_digest != whole


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES, 2 * BLOCK_BYTES + 1])
def test_only_whole_blocks_two_at_least_are_hashed(size: int) -> None:
    with pytest.raises(FormatError, match="dm-verity"):
        hash_tree(bytes(size))
