"""Every scheme, hash, bank and form that a quote may come in; what a TPM signs is read as it is."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from constellation.attestation.tpm import forms, pcr, quote
from constellation.attestation.tpm.device import AK_TEMPLATE, Tpm
from constellation.attestation.tpm.public import Curve, EccKey, Public, RsaKey, Scheme
from constellation.attestation.tpm.structures import (
    GENERATED,
    ST_ATTEST_QUOTE,
    Alg,
    Attest,
    ClockInfo,
    EcdsaSignature,
    PcrSelection,
    RsaSignature,
)
from constellation.base.errors import FormatError, Untrusted
from tests.fakes.tpm import swtpm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HASHES: dict[Alg, Any] = {
    Alg.SHA256: hashes.SHA256(),
    Alg.SHA384: hashes.SHA384(),
    Alg.SHA512: hashes.SHA512(),
}
RSA = rsa.generate_private_key(65537, 2048)
CURVES: dict[Curve, Any] = {
    Curve.P256: ec.generate_private_key(ec.SECP256R1()),
    Curve.P384: ec.generate_private_key(ec.SECP384R1()),
    Curve.P521: ec.generate_private_key(ec.SECP521R1()),
}
PCRS = {4: b"\4" * 32, 8: b"\x08" * 32}
NONCE = b"nonce".ljust(32)
NULL = Scheme(scheme=Alg.NULL)


def message(bank: Alg = Alg.SHA256, pcrs: Any = None, hashed: Alg = Alg.SHA256) -> bytes:
    values = pcrs or PCRS
    return Attest(
        magic=GENERATED,
        type=ST_ATTEST_QUOTE,
        qualified_signer=b"",
        extra_data=NONCE,
        clock_info=ClockInfo(clock=1, reset_count=1, restart_count=0, safe=True),
        firmware_version=1,
        pcr_select=(PcrSelection(bank=bank, pcrs=tuple(sorted(values))),),
        pcr_digest=pcr.quote_digest(hashed, values),
    ).pack()


def rsa_public(key: rsa.RSAPrivateKey = RSA, scheme: Scheme = NULL) -> Public:
    modulus = key.public_key().public_numbers().n.to_bytes(key.key_size // 8, "big")
    unique = RsaKey(key_bits=key.key_size, exponent=0, modulus=modulus)
    return replace(AK_TEMPLATE, scheme=scheme, key=unique)


def ecc_public(curve: Curve) -> Public:
    size = (CURVES[curve].key_size + 7) // 8
    numbers = CURVES[curve].public_key().public_numbers()
    x, y = (n.to_bytes(size, "big") for n in (numbers.x, numbers.y))
    return replace(AK_TEMPLATE, scheme=NULL, key=EccKey(curve=curve, kdf=NULL, x=x, y=y))


def rsa_signed(data: bytes, how: Any, hashed: Alg, *, scheme: Alg) -> bytes:
    return RsaSignature(scheme=scheme, hash=hashed, sig=RSA.sign(data, how, HASHES[hashed])).pack()


def ecdsa_signed(data: bytes, curve: Curve, hashed: Alg) -> bytes:
    r, s = decode_dss_signature(CURVES[curve].sign(data, ec.ECDSA(HASHES[hashed])))
    size = (CURVES[curve].key_size + 7) // 8
    r_bytes, s_bytes = (n.to_bytes(size, "big") for n in (r, s))
    return EcdsaSignature(hash=hashed, signature_r=r_bytes, signature_s=s_bytes).pack()


def judge(data: bytes, signature: bytes, public: Public, **changed: Any) -> Any:
    arguments = {"qualifying_data": NONCE, "bank": Alg.SHA256, "pcrs": PCRS} | changed
    return quote.verify(data, signature=signature, ak_public=public, **arguments)


@pytest.mark.parametrize("hashed", HASHES)
def test_rsa_signatures_of_both_schemes_are_verified_with_any_salt(hashed: Alg) -> None:
    data, algorithm = message(hashed=hashed), HASHES[hashed]
    signatures = [rsa_signed(data, padding.PKCS1v15(), hashed, scheme=Alg.RSASSA)]
    for salt in (algorithm.digest_size, padding.PSS.MAX_LENGTH, 0):
        how = padding.PSS(padding.MGF1(algorithm), salt)
        signatures.append(rsa_signed(data, how, hashed, scheme=Alg.RSAPSS))
    for signature in signatures:
        assert judge(data, signature, rsa_public()).claims.pcrs == PCRS
        with pytest.raises(Untrusted, match="did not make this signature"):
            judge(data[:-1] + bytes([data[-1] ^ 1]), signature, rsa_public())


def test_one_scheme_does_not_pass_for_another() -> None:
    data = message()
    how = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    for true, claimed in ((how, Alg.RSASSA), (padding.PKCS1v15(), Alg.RSAPSS)):
        with pytest.raises(Untrusted, match="did not make"):
            judge(data, rsa_signed(data, true, Alg.SHA256, scheme=claimed), rsa_public())
    only = rsa_public(scheme=Scheme(scheme=Alg.RSASSA, hash=Alg.SHA256))
    with pytest.raises(Untrusted, match="RSAPSS with SHA256, the AK allows RSASSA with SHA256"):
        judge(data, rsa_signed(data, how, Alg.SHA256, scheme=Alg.RSAPSS), only)
    longer = message(hashed=Alg.SHA512)
    signature = rsa_signed(longer, padding.PKCS1v15(), Alg.SHA512, scheme=Alg.RSASSA)
    with pytest.raises(Untrusted, match="RSASSA with SHA512, the AK allows RSASSA with SHA256"):
        judge(longer, signature, only)
    with pytest.raises(Untrusted, match="ECDSA signature, but the AK is of another kind"):
        judge(data, ecdsa_signed(data, Curve.P256, Alg.SHA256), rsa_public())


@pytest.mark.parametrize("curve", Curve)
@pytest.mark.parametrize("hashed", HASHES)
def test_every_curve_and_hash_is_verified(curve: Curve, hashed: Alg) -> None:
    data = message(hashed=hashed)
    signature = ecdsa_signed(data, curve, hashed)
    assert judge(data, signature, ecc_public(curve)).claims.pcrs == PCRS
    other = next(h for h in HASHES if h is not hashed)
    confused = ecdsa_signed(message(hashed=other), curve, hashed)
    with pytest.raises(Untrusted, match="pcrDigest"):
        judge(message(hashed=other), confused, ecc_public(curve))


@pytest.mark.parametrize(("bank", "size"), [(Alg.SHA384, 48), (Alg.SHA512, 64)])
def test_banks_are_quoted_by_the_signatures_hash_and_not_taken_for_each_other(
    bank: Alg, size: int
) -> None:
    pcrs = {4: b"\4" * size}
    data = message(bank, pcrs)
    signature = ecdsa_signed(data, Curve.P256, Alg.SHA256)
    public = ecc_public(Curve.P256)
    assert judge(data, signature, public, bank=bank, pcrs=pcrs).claims.bank is bank
    with pytest.raises(Untrusted, match=f"banks {bank.name}, expected SHA256 alone"):
        judge(data, signature, public, pcrs=pcrs)


def test_weak_and_wrongly_described_keys_are_no_ak() -> None:
    weak = rsa.generate_private_key(65537, 1024)  # noqa: S505 - refused
    data = message()
    signature = rsa_signed(data, padding.PKCS1v15(), Alg.SHA256, scheme=Alg.RSASSA)
    with pytest.raises(Untrusted, match="RSA of 1024 bits"):
        judge(data, signature, rsa_public(weak))
    lies = rsa_public()
    assert isinstance(lies.key, RsaKey)
    with pytest.raises(Untrusted, match="RSA of 2048 bits"):
        judge(data, signature, replace(lies, key=replace(lies.key, key_bits=4096)))


@pytest.mark.parametrize("public", [rsa_public(), *map(ecc_public, Curve)])
def test_an_ak_is_the_same_in_every_form(public: Public) -> None:
    packed, key = public.pack(), quote.public_key(public)
    assert forms.parse_ak(packed) == public
    assert forms.parse_ak(len(packed).to_bytes(2, "big") + packed) == public
    for encoding in (Encoding.DER, Encoding.PEM):
        data = key.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
        assert forms.parse_ak(data) == key
    for junk in (b"", packed + b"\0", packed[:-1], b"\x30\x03abc", b"-----BEGIN PUBLIC KEY-----"):
        with pytest.raises(FormatError):
            forms.parse_ak(junk)


def test_keys_that_no_tpm_signs_with_and_endless_ones_are_refused() -> None:
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    with pytest.raises(FormatError, match="want RSA or EC"):
        forms.parse_ak(other.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(FormatError, match="at most"):
        forms.parse_ak(bytes(1 << 20))


def test_a_signature_is_the_same_in_every_form() -> None:
    data = message()
    raw = RSA.sign(data, padding.PKCS1v15(), hashes.SHA256())
    der = CURVES[Curve.P384].sign(data, ec.ECDSA(hashes.SHA256()))
    for key, public, signatures in (
        (RSA, rsa_public(),
         (raw, RsaSignature(scheme=Alg.RSASSA, hash=Alg.SHA256, sig=raw).pack())),
        (CURVES[Curve.P384], ecc_public(Curve.P384),
         (der, ecdsa_signed(data, Curve.P384, Alg.SHA256))),
    ):  # fmt: skip
        for signature in signatures:
            found = forms.parse_any_signature(signature, key=key.public_key(), hash_alg=Alg.SHA256)
            assert judge(data, found, public).claims.pcrs == PCRS
        for junk in (b"", b"\x30\x02\1\1", signatures[0][:-1], signatures[1] + b"\0"):
            with pytest.raises(FormatError):
                forms.parse_any_signature(junk, key=key.public_key(), hash_alg=Alg.SHA256)


ZERO, ONE = "00" * 32, "11" * 32


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        "{}",
        '{"4": 5}',
        '{"4": {}}',
        '{"x": "00"}',
        '{"4": "zz"}',
        f'{{"-1": "{ZERO}"}}',
        f'{{"4": "{ZERO}", "5": "00"}}',
        f'{{"4": "{ZERO}", "4": "{ONE}"}}',
        f'{{"4": "{ZERO}", "04": "{ONE}"}}',
        f'{{" 4": "{ZERO}"}}',
        f'{{"4_0": "{ZERO}"}}',
        f'{{"\\uff14": "{ZERO}"}}',
        f'{{"4": "{"00 " * 32}"}}',
    ],
)
def test_register_values_have_one_spelling(text: str) -> None:
    with pytest.raises(FormatError, match="PCRs"):
        forms.parse_pcrs(text.encode())


def test_register_values_are_read() -> None:
    text = json.dumps({str(n): v.hex() for n, v in PCRS.items()})
    assert forms.parse_pcrs(text.encode()) == PCRS


@pytest.fixture
async def tpm() -> AsyncIterator[Tpm]:
    with tempfile.TemporaryDirectory(prefix="forms") as name:
        async with swtpm(Path(name)) as socket, await Tpm.connect(socket) as opened:
            yield opened


@pytest.mark.parametrize("scheme", [Alg.RSASSA, Alg.RSAPSS])
@pytest.mark.parametrize("hashed", [Alg.SHA256, Alg.SHA384])
async def test_what_a_tpm_signs_is_verified(tpm: Tpm, scheme: Alg, hashed: Alg) -> None:
    template = replace(
        AK_TEMPLATE,
        scheme=Scheme(scheme=scheme, hash=hashed),
        key=RsaKey(key_bits=2048, exponent=0, modulus=b""),
    )
    handle, public = await tpm.create_primary(template.pack())
    data, signature = await tpm.quote(handle, qualifying_data=NONCE, pcrs=(0, 4), bank=hashed)
    pcrs = await tpm.read_pcrs((0, 4), bank=hashed)
    found = judge(data, signature, public, bank=hashed, pcrs=pcrs).claims
    assert (found.bank, found.pcrs) == (hashed, pcrs)
