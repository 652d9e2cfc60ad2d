"""Tests of constellation.crypto.derive."""

import hashlib
import hmac

import pytest

from constellation.base.errors import FormatError
from constellation.base.secret import Secret
from constellation.crypto.derive import MasterSecret, canonical_key_id, cluster_id, derive_key

MASTER = MasterSecret(key=Secret(bytes(range(32))), salt=Secret(bytes(range(32, 64))))
UUID = "0123456789abcdef0123456789abcdef"


def rfc5869(key: bytes, salt: bytes, info: bytes, size: int) -> bytes:
    """HKDF-SHA256 as RFC 5869, section 2 prints it."""
    prk = hmac.digest(salt, key, hashlib.sha256)
    okm = block = b""
    while len(okm) < size:
        block = hmac.digest(prk, block + info + bytes([len(okm) // 32 + 1]), hashlib.sha256)
        okm += block
    return okm[:size]


@pytest.mark.parametrize(
    ("key_id", "size", "expected"),
    [
        (
            "measurementSecret",
            32,
            "ea7fedd14f5a29b1b8545592fc20bfdae06918e4ff447b1a0b8e4f3356005bda",
        ),
        ("ssh-ca", 32, "237b1f2f1f996d67daf273aac3d85ed90c7c48f82289f00f5f455dfa4595ea31"),
        (
            f"state-disk/{UUID}",
            64,
            (
                "3cad8aa210222f074e3cc67f0f1ce39b738e5e3c59992894a2562b44a5fa7f47"
                "2a111d2062ea07b8638afb1f8d1a4a08170d2ae2abfa6737013bd22c05be0dbd"
            ),
        ),
        ("etcd/1", 32, "5e8d098362caf686f80460e8784fd8e2f460819469321f2961a48d27c334dd1e"),
    ],
)
def test_a_derived_key_equals_its_known_answer(key_id: str, size: int, expected: str) -> None:
    assert derive_key(MASTER, key_id, size_bytes=size).reveal().hex() == expected


@pytest.mark.parametrize("key_id", ["measurementSecret", "volume/pvc-1", f"state-disk/{UUID}"])
def test_derivation_is_rfc_5869_with_the_id_as_info(key_id: str) -> None:
    expected = rfc5869(MASTER.key.reveal(), MASTER.salt.reveal(), b"key-" + key_id.encode(), 64)
    assert derive_key(MASTER, key_id, size_bytes=64).reveal() == expected


def test_the_cluster_id_equals_its_known_answer() -> None:
    assert (
        cluster_id(MASTER).hex()
        == "bc9cb582a07915ec2e3ed227b2b5594273ee1a23adda549a160049614f1b5a2c"
    )


def test_a_later_generation_gives_no_cluster_id() -> None:
    with pytest.raises(ValueError, match="generation 1"):
        cluster_id(MasterSecret(key=MASTER.key, salt=MASTER.salt, generation=2))


def test_both_spellings_of_a_uuid_give_one_key() -> None:
    dashed = "state-disk/01234567-89ab-cdef-0123-456789abcdef"
    assert canonical_key_id(dashed) == f"state-disk/{UUID}"
    assert derive_key(MASTER, dashed, size_bytes=64) == derive_key(
        MASTER, f"state-disk/{UUID}", size_bytes=64
    )


@pytest.mark.parametrize(
    "key_id",
    [
        "",
        "clusterID",
        "measurementSecret/",
        "state-disk/",
        "state-disk/0123",
        f"state-disk/{UUID.upper()}",
        f"state-disk/{UUID}/../ssh-ca",
        f"state-disk/{UUID}\n",
        "volume/",
        "volume/../etcd/1",
        "volume/-x",
        "etcd/01",
        "etcd/-1",
        "ssh-ca ",
        "key-ssh-ca",
    ],
)
def test_an_id_outside_the_grammar_is_refused(key_id: str) -> None:
    with pytest.raises(FormatError, match="key id"):
        derive_key(MASTER, key_id, size_bytes=32)


@pytest.mark.parametrize("size", [0, -1, 8161])
def test_a_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(FormatError, match="bytes"):
        derive_key(MASTER, "ssh-ca", size_bytes=size)


@pytest.mark.parametrize(("key", "salt"), [(31, 32), (32, 0), (0, 0), (64, 32)])
def test_a_master_secret_of_another_size_is_refused(key: int, salt: int) -> None:
    with pytest.raises(FormatError, match="want 32"):
        MasterSecret(key=Secret(bytes(key)), salt=Secret(bytes(salt)))


def test_printing_a_master_secret_shows_no_secret() -> None:
    assert "00" not in repr(MASTER)
    assert "<32 secret bytes>" in repr(MASTER)
