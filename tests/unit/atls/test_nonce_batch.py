"""Tests of constellation.atls.nonce_batch: a nonce has one root, and only at its own place."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constellation.atls.nonce_batch import MAX_NONCES, Place, gather, root_of
from constellation.base.errors import FormatError

NONCES = tuple(hashlib.sha256(bytes([n])).digest() for n in range(MAX_NONCES))
DIGEST = st.binary(min_size=32, max_size=32)


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def test_the_root_is_rfc_9162_s() -> None:
    a, b, c, d, e = (_sha256(b"\0" + n) for n in NONCES[:5])
    ab, cd = _sha256(b"\1" + a + b), _sha256(b"\1" + c + d)
    assert gather(NONCES[:1]).root == a
    assert gather(NONCES[:3]).root == _sha256(b"\1" + ab + c)
    batch = gather(NONCES[:5])
    assert batch.root == _sha256(b"\1" + _sha256(b"\1" + ab + cd) + e)
    assert batch.places[2] == Place(index=2, size=5, path=(d, ab, e))
    assert batch.places[4].path == (_sha256(b"\1" + ab + cd),)


@pytest.mark.parametrize("size", [*range(1, 20), 127, 128, 129, MAX_NONCES])
def test_every_caller_finds_the_root_with_its_own_nonce_alone(size: int) -> None:
    batch = gather(NONCES[:size])
    assert len(batch.places) == size
    for nonce, place in zip(NONCES, batch.places, strict=False):
        assert root_of(nonce, place) == batch.root
        assert root_of(bytes(32), place) != batch.root


def test_a_node_of_the_tree_is_no_nonce() -> None:
    batch = gather(NONCES[:4])
    inner = _sha256(b"\1" + _sha256(b"\0" + NONCES[0]) + _sha256(b"\0" + NONCES[1]))
    above = Place(index=0, size=2, path=(batch.places[0].path[1],))
    assert root_of(inner, above) != batch.root
    assert root_of(batch.root, Place(index=0, size=1, path=())) != batch.root


@given(st.integers(1, 40), st.data())
@settings(max_examples=60, deadline=None)
def test_at_another_place_or_with_another_path_there_is_another_root_or_none(
    size: int, data: st.DataObject
) -> None:
    batch = gather(NONCES[:size])
    at = data.draw(st.integers(0, size - 1))
    true = batch.places[at]
    path = list(true.path)
    if path:
        path[data.draw(st.integers(0, len(path) - 1))] = data.draw(DIGEST)
    other = data.draw(
        st.sampled_from(
            [
                dataclasses.replace(true, path=tuple(path)),
                dataclasses.replace(true, path=(*true.path, bytes(32))),
                dataclasses.replace(true, path=true.path[:-1]),
                dataclasses.replace(true, size=data.draw(st.integers(0, 300))),
            ]
        )
    )
    try:
        found = root_of(NONCES[at], other)
    except FormatError:
        return
    # a place in a tree of another size may lead up the same way: it is the same nonce and path
    assert found != batch.root or other.path == true.path


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (Place(index=0, size=0, path=()), "place 0 of 0"),
        (Place(index=1, size=1, path=()), "place 1 of 1"),
        (Place(index=0, size=MAX_NONCES + 1, path=()), "of 257"),
        (Place(index=0, size=2**32 - 1, path=(bytes(32),) * 32), "of 4294967295"),
        (Place(index=0, size=MAX_NONCES, path=(bytes(32),) * 9), "at most 8"),
        (Place(index=0, size=2, path=(bytes(31),)), "digests"),
        (Place(index=0, size=1, path=(bytes(32),)), "longer than the tree"),
        (Place(index=0, size=4, path=(bytes(32),)), "below the root"),
    ],
)
def test_what_is_no_place_is_refused(place: Place, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        root_of(NONCES[0], place)


def test_a_batch_has_a_bound_and_nonces_have_one_size() -> None:
    for nonces in ((), (*NONCES, NONCES[0]), (bytes(31),)):
        with pytest.raises(ValueError, match="want 1 to 256"):
            gather(nonces)
    with pytest.raises(ValueError, match="want 32"):
        root_of(bytes(31), Place(index=0, size=1, path=()))
