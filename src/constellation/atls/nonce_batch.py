"""How one quote answers many callers: it commits to the root of a tree that holds all their nonces.

Each caller gets its nonce's place in the tree and computes the root itself, so evidence that it
accepts was made after it chose its nonce, whoever else was served by it. A batch of one is a tree
of one. Source: RFC 9162, sections 2.1.1 (Merkle Tree Hash), 2.1.3.1 and 2.1.3.2 (inclusion proof),
with SHA-256. Pure; both ends call these functions.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from constellation.atls.binding import NONCE_BYTES
from constellation.base.errors import FormatError

__all__ = ["MAX_NONCES", "NonceBatch", "Place", "gather", "root_of"]

MAX_NONCES: Final = 256
"""In one batch: a path has 8 digests at most."""

_DIGEST_BYTES: Final = 32
_LEAF, _NODE = b"\x00", b"\x01"
_MAX_PATH: Final = (MAX_NONCES - 1).bit_length()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a nonce is: number `index` of `size`, and the digests (32 bytes) up to the root."""

    index: int
    size: int
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NonceBatch:
    """The root (32 bytes) of some nonces, and the place of each, in their order."""

    root: bytes
    places: tuple[Place, ...]


def gather(nonces: tuple[bytes, ...]) -> NonceBatch:
    """Make the tree of 1 to `MAX_NONCES` nonces (32 bytes each; the same twice is two places).

    Raises:
        ValueError: another number of nonces, or a nonce of another size.
    """
    if not 1 <= len(nonces) <= MAX_NONCES or any(len(n) != NONCE_BYTES for n in nonces):
        raise ValueError(f"{len(nonces)} nonces, want 1 to {MAX_NONCES} of {NONCE_BYTES} bytes")
    root, paths = _tree(tuple(_leaf(n) for n in nonces))
    size = len(nonces)
    return NonceBatch(
        root=root,
        places=tuple(Place(index=i, size=size, path=p) for i, p in enumerate(paths)),
    )


def root_of(nonce: bytes, place: Place) -> bytes:
    """Give the root of the tree that has the caller's own nonce at a place that somebody claims.

    Nothing is believed by that: evidence must commit to this very root.

    Raises:
        FormatError: there is no such place in any tree.
        ValueError: the nonce has another size: it is the caller's own.
    """
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"nonce: {len(nonce)} bytes, want {NONCE_BYTES}")
    if not 0 <= place.index < place.size <= MAX_NONCES:
        raise FormatError(
            f"nonce batch: place {place.index} of {place.size}, expected at most {MAX_NONCES}"
        )
    if len(place.path) > _MAX_PATH or any(len(p) != _DIGEST_BYTES for p in place.path):
        raise FormatError(f"nonce batch: not a path of at most {_MAX_PATH} digests")
    at, last, digest = place.index, place.size - 1, _leaf(nonce)
    for sibling in place.path:  # RFC 9162, section 2.1.3.2, step 4
        if last == 0:
            raise FormatError("nonce batch: the path is longer than the tree is high")
        if at & 1 or at == last:
            digest = _node(sibling, digest)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            digest = _node(digest, sibling)
        at, last = at >> 1, last >> 1
    if last != 0:
        raise FormatError("nonce batch: the path ends below the root")
    return digest


def _tree(leaves: tuple[bytes, ...]) -> tuple[bytes, tuple[tuple[bytes, ...], ...]]:
    if len(leaves) == 1:
        return leaves[0], ((),)
    # the largest power of two that is smaller than their number
    middle = 1 << (len(leaves) - 1).bit_length() - 1
    left, of_left = _tree(leaves[:middle])
    right, of_right = _tree(leaves[middle:])
    paths = (*((*p, right) for p in of_left), *((*p, left) for p in of_right))
    return _node(left, right), paths


def _leaf(nonce: bytes) -> bytes:
    return hashlib.sha256(_LEAF + nonce).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(_NODE + left + right).digest()
