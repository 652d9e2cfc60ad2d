"""Published Nitro documents, and a made-up hypervisor's for each rule."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from constellation.attestation import chain
from constellation.attestation.nitro import document as nitro
from constellation.attestation.nitro.document import Document, Kind
from constellation.attestation.roots import aws
from constellation.base.errors import ConstellationError, FormatError, Untrusted
from tests.fakes.aws_nitro import NitroWorld
from tests.vectors import evidence
from tests.vectors.edits import edited

ITEMS = evidence.items("aws")
PUBLISHED = evidence.read("aws", ITEMS["nitrotpm-vaportpm"], "COSE")
ENCLAVE = evidence.read("aws", ITEMS["nitro-enclave-nsm"], "COSE")
ROOTS = tuple(chain.load(der, what="root") for der in aws.ROOTS)
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
WORLD = NitroWorld(NOW)
PCRS = {n: bytes([n]) * 48 for n in range(16)}


def at(item: str) -> datetime:
    return datetime.fromisoformat(ITEMS[item]["verify_at"])


def published(data: bytes = PUBLISHED, **changed: Any) -> Document:
    item = "nitrotpm-vaportpm"
    arguments: dict[str, Any] = {
        "kind": Kind.NITRO_TPM,
        "nonce": bytes.fromhex(ITEMS[item]["values"]["nonce"]),
        "roots": ROOTS,
        "now": at(item),
    }
    return nitro.verify(nitro.parse(data), **(arguments | changed)).claims


def made(data: bytes, **changed: Any) -> Document:
    return published(data, **({"nonce": b"n" * 32, "roots": WORLD.roots, "now": NOW} | changed))


def test_a_published_nitrotpm_document_is_authentic_with_its_published_fields() -> None:
    found, values = published(), ITEMS["nitrotpm-vaportpm"]["values"]
    assert {str(n): v.hex() for n, v in found.pcrs.items()} == values["pcrs"]
    assert found.module_id == values["module_id"]
    assert found.timestamp_ms == values["timestamp_ms"]
    assert found.public_key.hex() == values["public_key"]
    assert len(found.cabundle) + 1 == len(values["chain"])


def test_a_published_enclave_document_is_authentic_but_not_a_nitrotpm_one() -> None:
    now = at("nitro-enclave-nsm")
    found = published(ENCLAVE, kind=Kind.ENCLAVE, nonce=b"", now=now)
    assert found.user_data == bytes(64)
    with pytest.raises(Untrusted, match="has pcrs, expected nitrotpm_pcrs"):
        published(ENCLAVE, nonce=b"", now=now)
    with pytest.raises(Untrusted, match="has nitrotpm_pcrs, expected pcrs"):
        published(kind=Kind.ENCLAVE)


@pytest.mark.parametrize("mutation", evidence.mutations("aws"), ids=lambda m: m["id"])
def test_every_published_edit_gets_its_verdict(mutation: dict[str, Any]) -> None:
    ops = mutation["ops"]
    times = [datetime.fromtimestamp(op["unix"], UTC) for op in ops if op["op"] == "verify_at"]
    changed = {"now": times[0]} if times else {}
    data = PUBLISHED if times else edited(PUBLISHED, ops)
    with pytest.raises((FormatError, Untrusted)):
        published(data, **changed)


def test_what_a_made_up_hypervisor_signs_is_read_tagged_or_not() -> None:
    for tagged in (False, True):
        assert made(WORLD.document(PCRS, nonce=b"n" * 32, tagged=tagged)).pcrs == PCRS


def test_the_nonce_is_the_expected_one_all_of_it() -> None:
    data = WORLD.document(PCRS, nonce=b"n" * 32)
    for other in (b"", b"n" * 31, b"n" * 33, b"m" * 32):
        with pytest.raises(Untrusted, match="nonce"):
            made(data, nonce=other)
    with pytest.raises(Untrusted, match="nonce"):
        made(WORLD.document(PCRS, nonce=None))


def test_another_root_or_time_is_refused() -> None:
    data = WORLD.document(PCRS, nonce=b"n" * 32)
    with pytest.raises(Untrusted, match="was not given"):
        made(data, roots=ROOTS)
    with pytest.raises(Untrusted, match="valid from"):
        made(data, now=NOW + timedelta(hours=4))


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"protected": bytes.fromhex("a10126")}, "want ES384"),
        ({"unprotected": {4: 1}}, "want ES384 alone"),
        ({"digest": "SHA256"}, "digest is not SHA384"),
        ({"digest": 3}, "digest is not a text"),
        ({"field": "other_pcrs"}, "0 of nitrotpm_pcrs and pcrs"),
        ({"field": "pcrs", "nitrotpm_pcrs": PCRS}, "2 of nitrotpm_pcrs and pcrs"),
        ({"extra": 1}, "field extra missing or unknown"),
        ({"module_id": ""}, "module_id is not a text"),
        ({"timestamp": -1}, "timestamp"),
        ({"timestamp": True}, "timestamp"),
        ({"nitrotpm_pcrs": {}}, "not a map of 1 to 32"),
        ({"nitrotpm_pcrs": {0: bytes(32)}}, "PCR 0 has not 48 bytes"),
        ({"nitrotpm_pcrs": {32: bytes(48)}}, "register 32"),
        ({"nitrotpm_pcrs": {"0": bytes(48)}}, "register 0"),
        ({"cabundle": []}, "cabundle"),
        ({"cabundle": [1]}, "cabundle"),
        ({"certificate": b"x"}, "Nitro certificate"),
        ({"user_data": bytes(1025)}, "user_data has 1025 bytes"),
        ({"public_key": "text"}, "public_key is not bytes"),
    ],
)
def test_each_field_of_a_document_counts(how: dict[str, Any], reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        nitro.parse(WORLD.document(PCRS, nonce=b"n" * 32, **how))


def test_a_missing_field_is_refused() -> None:
    parts = cbor2.loads(PUBLISHED)
    fields = cbor2.loads(parts[2])
    for name in fields:
        payload = cbor2.dumps({k: v for k, v in fields.items() if k != name})
        with pytest.raises(FormatError):
            nitro.parse(cbor2.dumps([parts[0], {}, payload, parts[3]]))


def test_a_key_of_another_curve_is_refused() -> None:
    with pytest.raises(Untrusted, match="not ECDSA P-384"):
        made(WORLD.document(PCRS, nonce=b"n" * 32, curve=ec.SECP256R1()))


def test_duplicate_keys_and_other_spellings_are_refused() -> None:
    parts = cbor2.loads(PUBLISHED)
    doubled = b"\xa2" + cbor2.dumps("nonce") + b"\xf6" + cbor2.dumps("nonce") + b"\xf6"
    with pytest.raises(FormatError, match="not CBOR"):
        nitro.parse(cbor2.dumps([parts[0], {}, doubled, parts[3]]))
    with pytest.raises(FormatError, match="shortest form"):
        nitro.parse(b"\x9f" + PUBLISHED[1:] + b"\xff")
    with pytest.raises(FormatError, match="left over"):
        nitro.parse(PUBLISHED + b"\0")


@given(st.binary(max_size=200))
def test_junk_is_a_format_error_and_nothing_else(junk: bytes) -> None:
    for data in (
        junk,
        b"\xd2\x84" + junk,
        cbor2.dumps([bytes.fromhex("a1013822"), {}, junk, bytes(96)]),
    ):
        with pytest.raises(FormatError):
            nitro.parse(data)


@given(st.integers(0, 8 * len(PUBLISHED) - 1))
def test_any_flipped_bit_of_a_document_is_refused(bit: int) -> None:
    with pytest.raises(ConstellationError):
        published(edited(PUBLISHED, [{"op": "xor", "offset": bit // 8, "mask": 1 << bit % 8}]))
