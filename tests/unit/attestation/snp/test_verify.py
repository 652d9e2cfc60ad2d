"""Each check of verify has a report, certificate or list that only it rejects."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from constellation.attestation.snp import Line, Product, SigningKey, Tcb, parse_report, verify
from constellation.attestation.snp.endorsements import (
    Endorsements,
    pack_certificate_table,
    parse_certificate_table,
)
from constellation.attestation.snp.report import REPORT_BYTES
from constellation.base.errors import FormatError, Untrusted
from constellation.crypto import der
from tests.fakes.amd import (
    AUTHORITY,
    NOW,
    TCBS,
    AmdWorld,
    Chip,
    extension,
    rsa_key,
    spki,
    vek_extensions,
)

WORLD = AmdWorld()
CHIP = WORLD.chip()
YEAR = timedelta(days=365)


def judge(
    raw: bytes = b"",
    *,
    chip: Chip = CHIP,
    world: AmdWorld = WORLD,
    now: object = NOW,
    **endorsed: bytes | None,
) -> object:
    return verify(
        parse_report(raw or chip.report()),
        endorsements=chip.endorsements(**endorsed),
        roots=world.roots,
        now=now,  # type: ignore[arg-type] # a time
    ).claims


@pytest.mark.parametrize("product", list(Product))
@pytest.mark.parametrize("kind", list(SigningKey))
@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_reports_of_every_kind_are_authentic(
    product: Product, kind: SigningKey, version: int
) -> None:
    world = AmdWorld(product=product)
    chip = world.chip(kind=kind)
    found = judge(chip.report(version=version), chip=chip, world=world)
    assert found.product is product  # type: ignore[attr-defined]
    assert found.signing_key is kind  # type: ignore[attr-defined]
    assert found.crl_current  # type: ignore[attr-defined]
    assert found.tcb("launch") == TCBS[product]  # type: ignore[attr-defined]


def test_chips_with_shared_keys_are_told_apart() -> None:
    genoa = AmdWorld(product=Product.GENOA)
    siena = judge(genoa.chip().report(cpuid_mod_id=0xA0), chip=genoa.chip(), world=genoa)
    assert siena.line is Line.BERGAMO  # type: ignore[attr-defined]
    turin = AmdWorld(product=Product.TURIN)
    dense = judge(turin.chip().report(cpuid_mod_id=0x11), chip=turin.chip(), world=turin)
    assert dense.line is Line.TURIN_DENSE  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"signature_algo": 2}, "unsupported signature algorithm 2"),
        ({"key_info": 2}, "masks the chip's key"),
        ({"key_info": 4}, "signed by VLEK, the certificate is a VCEK's"),
        ({"key_info": 7 << 2}, "signed by another key"),
        ({"cpuid_mod_id": 0x11}, "of a Genoa, the certificate is of a Milan"),
        ({"reported_tcb": Tcb(fmc=0, bootloader=4, tee=0, snp=24, microcode=220).pack(
            product=Product.MILAN)}, "reported TCB"),
        ({"chip_id": bytes(64)}, "chip id"),
        ({"chip_id": CHIP.hwid[:63] + b"\0"}, "chip id"),
    ],
)  # fmt: skip
def test_a_genuine_key_does_not_vouch_for_everything(
    changed: dict[str, int | bytes], why: str
) -> None:
    with pytest.raises(Untrusted, match=why):
        judge(CHIP.report(**changed))


def test_turin_compares_all_of_its_chip_id() -> None:
    world = AmdWorld(product=Product.TURIN)
    chip = world.chip()
    with pytest.raises(Untrusted, match="chip id"):
        judge(chip.report(chip_id=chip.hwid.ljust(63, b"\0") + b"\1"), chip=chip, world=world)
    older = TCBS[Product.TURIN]
    moved = Tcb(fmc=older.fmc + 1, bootloader=older.bootloader, tee=1, snp=4, microcode=75)
    with pytest.raises(Untrusted, match="reported TCB"):
        judge(chip.report(reported_tcb=moved.pack(product=Product.TURIN)), chip=chip, world=world)


def test_the_report_of_one_chip_with_the_certificate_of_another_is_refused() -> None:
    other = WORLD.chip(2)
    with pytest.raises(Untrusted, match="signature: the VCEK of this certificate"):
        judge(CHIP.report(), chip=other)


def test_another_root_is_not_trusted() -> None:
    stranger = AmdWorld(key_name="stranger")
    with pytest.raises(Untrusted, match="chain: its issuer did not make"):
        judge(chip=stranger.chip())
    with pytest.raises(Untrusted, match="none of the given roots"):
        judge(world=AmdWorld(product=Product.GENOA))
    with pytest.raises(Untrusted, match="none of the given roots"):
        verify(parse_report(CHIP.report()), endorsements=CHIP.endorsements(), roots=(), now=NOW)


def test_an_intermediate_is_no_root() -> None:
    with pytest.raises(Untrusted, match="root certificate: not issued by itself"):
        verify(
            parse_report(CHIP.report()),
            endorsements=CHIP.endorsements(intermediate=WORLD.intermediate(issuer="SEV-Milan")),
            roots=(CHIP.intermediate,),
            now=NOW,
        )


def test_a_root_must_have_signed_itself() -> None:
    forged = AmdWorld()
    root = WORLD.intermediate(
        subject="ARK-Milan", by=rsa_key("other"), public_key=spki(rsa_key("ark"))
    )
    object.__setattr__(forged, "roots", (root,))
    with pytest.raises(Untrusted, match="root certificate: chain"):
        judge(world=forged)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"by": rsa_key("other")}, "VCEK certificate: chain"),
        ({"issuer": "SEV-Genoa"}, "another issuer"),
        ({"public_key": spki(rsa_key("ask"))}, "wrong key type"),
        ({"public_key": spki(ec.derive_private_key(5, ec.SECP256R1()))}, "wrong key type"),
        ({"not_before": NOW + timedelta(seconds=1)}, "VCEK certificate: not yet valid"),
        ({"not_after": NOW - timedelta(seconds=1)}, "VCEK certificate: expired"),
        ({"algorithm": bytes.fromhex("300d06092a864886f70d01010b0500")}, "not RSASSA-PSS"),
        ({"extensions": (*vek_extensions(Product.MILAN, SigningKey.VCEK, CHIP.tcb, CHIP.hwid),
                         extension("1.2.3", b"", critical=True))}, "unknown critical extension"),
        ({"extensions": vek_extensions(Product.GENOA, SigningKey.VCEK, CHIP.tcb, CHIP.hwid)},
         "VCEK certificate of Genoa: issuer 'SEV-Milan'"),
    ],
)  # fmt: skip
def test_each_part_of_the_chips_certificate_counts(changed: dict[str, object], why: str) -> None:
    with pytest.raises(Untrusted, match=why):
        judge(chip=WORLD.chip(**changed))  # type: ignore[arg-type] # parts of a certificate


@pytest.mark.parametrize(
    ("extensions", "why"),
    [
        (lambda v: v[1:], r"structVersion .* is missing"),
        (lambda v: (*v[:2], *v[3:]), r"blSPL .* is missing"),
        (lambda v: v[:-1], r"hwID .* is missing"),
        (lambda v: (*v, extension("1.3.6.1.4.1.3704.1.3.9", b"\2\1\0")), "fmcSPL"),
        (lambda v: (*v, v[0]), "occurs twice"),
        (lambda v: (*v[:-1], extension("1.3.6.1.4.1.3704.1.4", b"\4\2ab")), "hwID has 2 bytes"),
        (lambda v: (*v[:-1], extension("1.3.6.1.4.1.3704.1.4", b"ab")), "hwID"),
        (lambda v: (v[0], extension("1.3.6.1.4.1.3704.1.2", b"\x16\4Rome"), *v[2:]), "no line"),
        (lambda v: (*v[:2], extension("1.3.6.1.4.1.3704.1.3.1", b"\2\2\1\0"), *v[3:]), "is 256"),
        (lambda v: (*v[:6], extension("1.3.6.1.4.1.3704.1.3.4", b"\2\1\1"), *v[7:]), "reserved"),
    ],
)
def test_what_amds_extensions_say_is_read_strictly(extensions: object, why: str) -> None:
    usual = vek_extensions(Product.MILAN, SigningKey.VCEK, CHIP.tcb, CHIP.hwid)
    with pytest.raises(FormatError, match=why):
        judge(chip=WORLD.chip(extensions=extensions(usual)))  # type: ignore[operator]


def test_a_wrapped_chip_id_is_read_as_the_specification_draws_it() -> None:
    usual = vek_extensions(Product.MILAN, SigningKey.VCEK, CHIP.tcb, CHIP.hwid)
    wrapped = extension("1.3.6.1.4.1.3704.1.4", der.write(der.OCTET_STRING, CHIP.hwid))
    judge(chip=WORLD.chip(extensions=(*usual[:-1], wrapped)))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"by": rsa_key("other")}, "intermediate certificate: chain"),
        ({"not_before": NOW + YEAR / 2}, "intermediate certificate: not yet valid"),
        ({"not_after": NOW - YEAR / 2}, "intermediate certificate: expired"),
        ({"extensions": AUTHORITY[:1]}, "not an authority"),
        ({"extensions": (extension("2.5.29.19", b"\x30\0", critical=True), AUTHORITY[1])},
         "CA:FALSE"),
        ({"extensions": (AUTHORITY[0], extension("2.5.29.15", b"\3\2\1\2", critical=True))},
         "does not allow"),
        ({"extensions": (*AUTHORITY, extension("2.5.29.30", b"\x30\0", critical=True))},
         "unknown critical"),
        ({"subject": "SEV-VLEK-Milan"}, "issuer 'SEV-VLEK-Milan', want SEV-Milan"),
        ({"public_key": spki(rsa_key("short", 2048))}, "not RSA of 4096 bits"),
    ],
)  # fmt: skip
def test_each_part_of_the_intermediate_counts(changed: dict[str, object], why: str) -> None:
    with pytest.raises(Untrusted, match=why):
        judge(intermediate=WORLD.intermediate(**changed))  # type: ignore[arg-type]


def test_an_expired_root_is_refused() -> None:
    world = AmdWorld(not_after=NOW - timedelta(days=1))
    with pytest.raises(Untrusted, match="root certificate: expired"):
        judge(world=world)


def test_without_an_intermediate_the_published_one_is_taken() -> None:
    with pytest.raises(Untrusted, match=r"none of the given roots|did not make"):
        judge(intermediate=None)
    with pytest.raises(Untrusted, match="is not known"):
        judge(chip=WORLD.chip(issuer="SEV-Rome"), intermediate=None)


def test_a_revocation_list_that_is_missing_or_old_is_recorded() -> None:
    missing = judge(crl=None)
    assert (missing.crl_present, missing.crl_current) == (False, False)  # type: ignore[attr-defined]
    for crl in (
        WORLD.crl(next_update=NOW - timedelta(seconds=1)),
        WORLD.crl(this_update=NOW + timedelta(seconds=1)),
    ):
        old = judge(crl=crl)
        assert (old.crl_present, old.crl_current) == (True, False)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("crl", "why"),
    [
        (WORLD.crl(revoked=(7, 0x10001)), "revoked: serial 0x10001"),
        (WORLD.crl(revoked=(0x10001,), next_update=NOW - YEAR / 2), "revoked"),
        (WORLD.crl(revoked=(0x10000,)), "root: revoked"),
        (WORLD.crl(by=rsa_key("other")), "CRL: chain"),
        (WORLD.crl(issuer="ARK-Genoa"), "CRL: its issuer"),
    ],
)
def test_a_revocation_list_is_obeyed_if_it_is_the_roots(crl: bytes, why: str) -> None:
    with pytest.raises(Untrusted, match=why):
        judge(crl=crl)


def test_a_list_that_may_be_incomplete_is_refused() -> None:
    delta = WORLD.crl(extensions=(extension("2.5.29.27", b"\2\1\1", critical=True),))
    with pytest.raises(FormatError, match="incomplete"):
        judge(crl=delta)


def test_another_serial_on_the_list_changes_nothing() -> None:
    assert judge(crl=WORLD.crl(revoked=(0, 1, 0x20001))).crl_current  # type: ignore[attr-defined]


@given(st.integers(0, 8 * REPORT_BYTES - 1))
@settings(deadline=None, max_examples=200)
def test_no_flipped_bit_of_a_report_is_accepted(bit: int) -> None:
    raw = bytearray(CHIP.report(report_data=b"\x5a" * 64))
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises((Untrusted, FormatError)):
        judge(bytes(raw))


@given(st.integers(0, 8 * len(CHIP.vek) - 1))
@settings(deadline=None, max_examples=200)
def test_no_flipped_bit_of_the_certificate_is_accepted(bit: int) -> None:
    raw = bytearray(CHIP.vek)
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises((Untrusted, FormatError)):
        judge(vek=bytes(raw))


@given(st.integers(0, 8 * len(WORLD.crl()) - 1))
@settings(deadline=None, max_examples=200)
def test_no_flipped_bit_of_the_list_is_accepted(bit: int) -> None:
    raw = bytearray(WORLD.crl())
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises((Untrusted, FormatError)):
        judge(crl=bytes(raw))


@given(st.binary(max_size=400))
@settings(deadline=None)
def test_junk_as_endorsement_is_a_format_error_and_nothing_else(junk: bytes) -> None:
    for changed in ({"vek": junk}, {"intermediate": junk}, {"crl": junk}):
        with pytest.raises(FormatError):
            judge(**changed)  # type: ignore[arg-type] # one of three


def test_certificates_come_with_an_extended_report() -> None:
    entries = {"vcek": CHIP.vek, "ask": CHIP.intermediate, "ark": WORLD.roots[0]}
    table = parse_certificate_table(pack_certificate_table(entries))
    assert (table.vcek, table.ask, table.ark) == tuple(entries.values())
    assert (table.vlek, table.crl) == (None, None)
    judge(vek=table.vcek, intermediate=table.ask)


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_a_junk_certificate_table_is_a_format_error_and_nothing_else(junk: bytes) -> None:
    try:
        parse_certificate_table(junk)
    except FormatError:
        return
    assert bytes(24) in junk + bytes(24)


def test_a_certificate_table_stays_inside_its_data() -> None:
    good = bytearray(pack_certificate_table({"vcek": b"x" * 10}))
    for offset, value in ((16, 47), (20, 11), (16, 255)):
        bad = bytearray(good)
        bad[offset] = value
        with pytest.raises(FormatError, match="is not inside"):
            parse_certificate_table(bytes(bad))
    with pytest.raises(FormatError, match="guid"):
        parse_certificate_table(bytes(good[:24]))


def test_pem_and_der_are_the_same_certificate() -> None:
    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(CHIP.vek)
    pem += b"-----END CERTIFICATE-----\n"
    judge(vek=pem)
    with pytest.raises(FormatError, match="exactly one"):
        judge(vek=pem + pem)


def test_endorsements_of_someone_else_do_not_help() -> None:
    other = replace(CHIP, key=WORLD.chip(3).key)
    given_ = Endorsements(vek=CHIP.vek, intermediate=CHIP.intermediate)
    with pytest.raises(Untrusted, match="signature"):
        verify(parse_report(other.report()), endorsements=given_, roots=WORLD.roots, now=NOW)
