"""Tests of constellation.atls.binding."""

import hashlib
import struct

import pytest

from constellation.atls.binding import channel_binding, verify_binding
from constellation.attestation.model import Variant

PARTS = {
    "purpose": "init-server",
    "variant": Variant.LOCAL_VTPM,
    "exporter": bytes([1]) * 32,
    "spki_digest": bytes([2]) * 32,
    "peer_nonce": bytes([3]) * 32,
}


def length_prefixed(*parts: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(p)) + p for p in parts)


def test_a_channel_binding_equals_its_known_answer() -> None:
    assert channel_binding(**PARTS).hex() == (  # type: ignore[arg-type]
        "1123d4015cd2bd7dc77f352bf597c6438c05290935b78c189768e8f606df6c1c"
        "53faa3388b86cd7b59681ba9e5185605d2a3e8de45e7e7cfac03339d1322384c"
    )


def test_a_channel_binding_is_the_design_s_formula() -> None:
    expected = length_prefixed(
        b"constellation-atls-v1",
        b"init-server",
        b"local-vtpm",
        bytes([1]) * 32,
        bytes([2]) * 32,
        bytes([3]) * 32,
    )
    assert channel_binding(**PARTS) == hashlib.sha512(expected).digest()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changed",
    [
        {"purpose": "recover-server"},
        {"variant": Variant.QEMU_VTPM},
        {"exporter": bytes(32)},
        {"spki_digest": bytes(32)},
        {"peer_nonce": bytes(32)},
    ],
)
def test_every_part_changes_the_binding(changed: dict[str, object]) -> None:
    assert channel_binding(**(PARTS | changed)) != channel_binding(**PARTS)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["exporter", "spki_digest", "peer_nonce"])
@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_part_of_another_size_is_a_bug(name: str, size: int) -> None:
    with pytest.raises(ValueError, match=name):
        channel_binding(**(PARTS | {name: bytes(size)}))  # type: ignore[arg-type]


@pytest.mark.parametrize("purpose", ["", "Init", "init_server", "init-server\n", "a--b"])
def test_a_purpose_outside_the_grammar_is_a_bug(purpose: str) -> None:
    with pytest.raises(ValueError, match="purpose"):
        channel_binding(**(PARTS | {"purpose": purpose}))  # type: ignore[arg-type]


def test_a_verify_binding_equals_its_known_answer() -> None:
    binding = verify_binding(nonces_root=bytes([4]) * 32, cluster_ca_digest=bytes([5]) * 32)
    assert binding.hex() == (
        "6ca1f499b184497b27ea3c1905575bce4fc31418f7ef62d97bd5f7c92283cb0f"
        "51de528603996b5b5fee182a1f1269e05e2e2d7d9ab57fa496aef9567dac09da"
    )


@pytest.mark.parametrize(("nonce", "digest"), [(31, 32), (32, 0), (0, 32)])
def test_a_verify_binding_needs_both_parts_whole(nonce: int, digest: int) -> None:
    with pytest.raises(ValueError, match="want 32"):
        verify_binding(nonces_root=bytes(nonce), cluster_ca_digest=bytes(digest))
