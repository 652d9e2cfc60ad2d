"""A certificate proves nothing here, and whatever its bytes are, the handshake says so in words."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL, crypto

from constellation.atls import tls
from constellation.atls.tls import Tls
from constellation.base.errors import FormatError
from constellation.crypto.signing import generate_key
from constellation.crypto.x509 import self_signed

# only pyOpenSSL's own class takes bytes that `cryptography` does not
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
NOW = datetime(2026, 11, 29, tzinfo=UTC)
KEY = generate_key()
CERTIFICATE = self_signed(KEY, common_name="x", now=NOW, lifetime=timedelta(hours=1)).public_bytes(
    Encoding.DER
)
SERVER, CLIENT = tls.context(server=True, now=NOW), tls.context(server=False, now=NOW)
VERSION = CERTIFICATE.index(bytes.fromhex("a003020102")) + 4
UTC_TIME = CERTIFICATE.index(b"\x17\x0d") + 2


def edited(at: int, new: bytes) -> bytes:
    return CERTIFICATE[:at] + new + CERTIFICATE[at + len(new) :]


def theirs(certificate: bytes, *, as_server: bool) -> SSL.Context | None:
    """Give an attacker's context that shows these bytes; None: its own OpenSSL refuses them."""
    made = SSL.Context(SSL.TLS_METHOD)
    made.set_min_proto_version(SSL.TLS1_3_VERSION)
    try:
        made.use_certificate(crypto.load_certificate(crypto.FILETYPE_ASN1, certificate))
        made.use_privatekey(KEY)
    except (crypto.Error, SSL.Error, ValueError):
        return None
    made.set_verify(SSL.VERIFY_PEER, lambda *_: True)
    if as_server:
        made.set_alpn_select_callback(lambda *_: tls.ALPN)
    else:
        made.set_alpn_protos([tls.ALPN])
    return made


def meet(context: SSL.Context | None, *, as_server: bool) -> bool:
    """Let our side shake hands with theirs; says whether it came through."""
    if context is None:
        return False
    peer = SSL.Connection(context, None)
    if as_server:
        peer.set_accept_state()
    else:
        peer.set_connect_state()
    ours = Tls(CLIENT if as_server else SERVER, server=not as_server)
    for _ in range(4):
        if ours.handshake():
            return len(ours.peer_spki_digest) == 32
        if sent := ours.outgoing():
            peer.bio_write(sent)
        try:
            peer.do_handshake()
        except SSL.WantReadError:
            pass
        except SSL.Error:
            return False
        with contextlib.suppress(SSL.WantReadError):
            ours.feed(peer.bio_read(1 << 16))
    return False


@pytest.mark.parametrize("as_server", [True, False])
@pytest.mark.parametrize(
    "certificate", [edited(VERSION, b"\x07"), edited(UTC_TIME, b"991399999999Z")]
)
def test_a_certificate_that_openssl_alone_can_read_is_a_typed_refusal(
    certificate: bytes, as_server: bool
) -> None:
    assert meet(theirs(CERTIFICATE, as_server=as_server), as_server=as_server), "the control case"
    context = theirs(certificate, as_server=as_server)
    assert context is not None
    with pytest.raises(FormatError, match="certificate cannot be read"):
        meet(context, as_server=as_server)


# a negative serial number is one that the library still takes; the proof is over the key alone
@pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")
@settings(max_examples=60, deadline=None)
@given(
    at=st.integers(min_value=0, max_value=len(CERTIFICATE) - 1),
    byte=st.binary(min_size=1, max_size=1),
    as_server=st.booleans(),
)
def test_no_byte_of_a_certificate_makes_anything_but_a_refusal(
    at: int, byte: bytes, as_server: bool
) -> None:
    with contextlib.suppress(FormatError):
        meet(theirs(edited(at, byte), as_server=as_server), as_server=as_server)
