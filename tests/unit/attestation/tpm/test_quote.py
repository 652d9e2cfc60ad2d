"""Published quotes, and quotes of a swtpm that tpm2-tools must judge as we do."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from constellation.attestation.platforms import local_vtpm
from constellation.attestation.tpm import forms, pcr, quote
from constellation.attestation.tpm.device import AK_TEMPLATE, CommandRefused, Tpm
from constellation.attestation.tpm.public import Attribute, Curve, EccKey, Public, Scheme
from constellation.attestation.tpm.structures import Alg, Attest, parse_signature
from constellation.base.errors import FormatError, Unavailable, Untrusted
from constellation.base.proc import run
from constellation.crypto.x509 import generate_key
from tests.fakes.tpm import program, swtpm
from tests.vectors import evidence

KEYLIME = evidence.items("tpm-quote")["keylime-quote"]
DSTACK = evidence.items("tpm-quote")["dstack-tpms-attest"]
_NUMBERS = generate_key().public_key().public_numbers()
POINT = EccKey(
    curve=Curve.P256,
    kdf=Scheme(scheme=Alg.NULL),
    x=_NUMBERS.x.to_bytes(32, "big"),
    y=_NUMBERS.y.to_bytes(32, "big"),
)
WINDOWS = evidence.items("tpm-eventlog")["windows-gcp-shielded-quote"]


def keylime_pcrs() -> dict[int, bytes]:
    # tpm2-tools before 5.3: TPML_PCR_SELECTION (132 bytes), count, TPML_DIGEST of 66-byte entries
    data = evidence.read("tpm-quote", KEYLIME, "quotepcr")[132 + 4 + 4 :]
    return {n: data[66 * i + 2 : 66 * i + 34] for i, n in enumerate((15, 16, 22))}


def keylime(**changed: object) -> object:
    arguments = {
        "signature": evidence.read("tpm-quote", KEYLIME, "quotesig"),
        "ak_public": Public.parse(evidence.read("tpm-quote", KEYLIME, "ak.pub")[2:]),
        "qualifying_data": bytes.fromhex(KEYLIME["values"]["tpms_attest"]["extra_data"]),
        "bank": Alg.SHA256,
        "pcrs": keylime_pcrs(),
    }
    message = evidence.read("tpm-quote", KEYLIME, "quote.out")
    return quote.verify(message, **(arguments | changed))  # type: ignore[arg-type]


def test_a_published_quote_is_authentic() -> None:
    assert keylime().claims.pcrs == keylime_pcrs()  # type: ignore[attr-defined]


def test_a_public_area_has_the_name_that_the_tpm_gave_it() -> None:
    public = Public.parse(evidence.read("tpm-quote", KEYLIME, "ak.pub")[2:])
    assert public.name() == evidence.read("tpm-quote", KEYLIME, "ak.name")


def test_each_part_of_a_quote_counts() -> None:
    public = Public.parse(evidence.read("tpm-quote", KEYLIME, "ak.pub")[2:])
    pcrs = keylime_pcrs()
    for attribute in quote.AK_ATTRIBUTES:
        changed = replace(public, object_attributes=public.object_attributes & ~attribute)
        with pytest.raises(Untrusted, match="are missing"):
            keylime(ak_public=changed)
    decrypts = replace(public, object_attributes=public.object_attributes | Attribute.DECRYPT)
    with pytest.raises(Untrusted, match="decrypt"):
        keylime(ak_public=decrypts)
    with pytest.raises(Untrusted, match="extraData"):
        keylime(qualifying_data=b"")
    with pytest.raises(Untrusted, match="pcrDigest"):
        keylime(pcrs=pcrs | {15: b"\1" * 32})
    with pytest.raises(Untrusted, match="registers 15,16,22"):
        keylime(pcrs={15: pcrs[15]})
    with pytest.raises(Untrusted, match="expected SHA384 alone"):
        keylime(bank=Alg.SHA384)
    with pytest.raises(Untrusted, match="31 bytes"):
        keylime(pcrs=pcrs | {15: b"\1" * 31})
    other = Public.parse(evidence.read("tpm-eventlog", WINDOWS, "TPMT_PUBLIC"))
    with pytest.raises(Untrusted, match="RSASSA with SHA256, the AK allows RSASSA with SHA1"):
        keylime(ak_public=other)
    with pytest.raises(Untrusted, match="did not make this signature"):
        keylime(ak_public=replace(other, scheme=public.scheme))
    with pytest.raises(Untrusted, match="another kind"):
        keylime(ak_public=replace(AK_TEMPLATE, scheme=Scheme(scheme=Alg.NULL), key=POINT))


def test_sha1_is_accepted_only_for_a_reason() -> None:
    pcrs = {int(n): bytes.fromhex(v) for n, v in WINDOWS["values"]["pcrs_sha1"].items()}
    arguments = {
        "signature": evidence.read("tpm-eventlog", WINDOWS, "tpmt_signature"),
        "ak_public": Public.parse(evidence.read("tpm-eventlog", WINDOWS, "TPMT_PUBLIC")),
        "qualifying_data": b"",
        "bank": Alg.SHA1,
        "pcrs": pcrs,
    }
    message = evidence.read("tpm-eventlog", WINDOWS, "tpms_attest")
    with pytest.raises(Untrusted, match="SHA-1"):
        quote.verify(message, **arguments)  # type: ignore[arg-type]
    quote.verify(message, insecure_sha1_reason="a published vector", **arguments)  # type: ignore[arg-type]


def test_a_published_quote_has_the_published_fields() -> None:
    data = evidence.read("tpm-quote", DSTACK, "tpms_attest")
    found, values = Attest.parse(data), DSTACK["values"]["tpms_attest"]
    assert found.pack() == data
    assert found.extra_data.hex() == values["extra_data"]
    assert found.clock_info.reset_count == values["reset_count"]
    assert found.pcr_digest.hex() == values["pcr_digest"]
    assert found.pcr_select[0].pcrs == (0, 1, 2)


@given(st.binary(max_size=160))
@settings(deadline=None)
def test_junk_is_a_format_error_and_nothing_else(junk: bytes) -> None:
    for parse in (Attest.parse, Public.parse, parse_signature):
        try:
            assert parse(junk).pack() == junk
        except FormatError:
            continue


STRUCTURES = (
    (Attest.parse, evidence.read("tpm-quote", DSTACK, "tpms_attest")),
    (Public.parse, evidence.read("tpm-quote", KEYLIME, "ak.pub")[2:]),
    (Public.parse, AK_TEMPLATE.pack()),
    (parse_signature, evidence.read("tpm-quote", KEYLIME, "quotesig")),
)


@given(st.data())
@settings(deadline=None)
def test_what_parses_packs_to_the_same_bytes(data: st.DataObject) -> None:
    for parse, raw in STRUCTURES:
        assert parse(raw).pack() == raw
        changed = bytearray(raw)
        changed[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        try:
            assert parse(bytes(changed)).pack() == changed
        except FormatError:
            continue


@pytest.fixture
async def tpm():  # type: ignore[no-untyped-def]  # noqa: ANN201
    with tempfile.TemporaryDirectory(prefix="tpm") as name:
        async with swtpm(Path(name)) as socket, await Tpm.connect(socket) as device:
            await device.startup()
            yield device


async def test_extending_follows_the_arithmetic_in_every_register(tpm: Tpm) -> None:
    numbers = tuple(range(16))
    for number in numbers:
        await tpm.extend(number, bytes([number]) * 32)
    found = await tpm.read_pcrs(numbers)
    assert found == {n: pcr.replay(Alg.SHA256, [bytes([n]) * 32], pcr=n) for n in numbers}


async def test_nv_keeps_more_than_one_piece(tpm: Tpm) -> None:
    data = bytes(range(256)) * 5
    await tpm.nv_define(0x01C101D0, len(data))
    assert await tpm.nv_read(0x01C101D0) == b""
    await tpm.nv_write(0x01C101D0, data)
    assert await tpm.nv_read(0x01C101D0) == data
    with pytest.raises(CommandRefused, match="TPM_RC_NV_DEFINED"):
        await tpm.nv_define(0x01C101D0, 8)
    with pytest.raises(CommandRefused, match="TPM_RC_HANDLE") as refused:
        await tpm.read_public(0x81000003)
    assert refused.value.is_missing


async def test_a_second_client_waits_no_longer_than_its_deadline(tpm: Tpm) -> None:
    await tpm.read_pcrs((0,))
    second = await Tpm.connect(tpm._path, timeout_s=0.3)
    with pytest.raises(Unavailable, match="did not answer"):
        await second.read_pcrs((0,))
    await second.close()
    assert await tpm.read_pcrs((0,))  # the first is not disturbed


async def test_tpm2_tools_judge_our_quote_as_we_do(tpm: Tpm) -> None:
    await tpm.extend(4, b"\4" * 32)
    handle, public = await tpm.create_primary_ak()
    message, signature = await tpm.quote(handle, qualifying_data=b"q" * 32, pcrs=(0, 4, 15))
    await tpm.flush(handle)
    pcrs = await tpm.read_pcrs((0, 4, 15))
    common = {"ak_public": public, "bank": Alg.SHA256, "pcrs": pcrs, "signature": signature}
    quote.verify(message, qualifying_data=b"q" * 32, **common)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory(prefix="oracle") as name:
        folder = Path(name)
        pem = quote.public_key(public).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        for file, data in (("ak.pem", pem), ("quote", message), ("sig", signature)):
            (folder / file).write_bytes(data)
        for qualification, accepted in (((b"q" * 32).hex(), True), ((b"p" * 32).hex(), False)):
            done = await run(
                *program("tpm2_checkquote"),
                *("-u", folder / "ak.pem", "-m", folder / "quote", "-s", folder / "sig"),
                *("-q", qualification),
                timeout_s=30,
                check=False,
            )
            assert (done.returncode == 0) == accepted, done.stderr
    with pytest.raises(Untrusted):
        quote.verify(message, qualifying_data=b"p" * 32, **common)  # type: ignore[arg-type]


async def test_tpm2_tools_replay_our_log_to_our_prediction() -> None:
    log, extends = local_vtpm.firmware_log(b"\7" * 32, "line", b"ID=x\n")
    with tempfile.TemporaryDirectory(prefix="oracle") as name:
        path = Path(name) / "log"
        path.write_bytes(log)
        done = await run(*program("tpm2_eventlog"), path, timeout_s=30)
    text = done.stdout.decode()
    for value in local_vtpm.predicted_pcrs(extends).values():
        assert value.hex() in text.lower()


@pytest.mark.parametrize(
    "data",
    [
        bytes.fromhex("01010000") + b"QUOT" + bytes(40),  # TPM_QUOTE_INFO
        bytes.fromhex("0036") + b"QUT2" + bytes(46),  # TPM_QUOTE_INFO2
        bytes.fromhex("000000010003000200000000"),  # TPM_PUBKEY
        bytes.fromhex("0028000000000000"),  # TPM_KEY12
    ],
)
def test_structures_of_tpm_1_2_are_refused_by_name(data: bytes) -> None:
    for parse in (Attest.parse, Public.parse, forms.parse_ak):
        with pytest.raises(FormatError, match=r"TPM 1\.2"):
            parse(data)
