"""How a NitroTPM document is asked for: a request in CBOR, and the answer in its place.

{"Attestation": {"user_data": null, "nonce": bytes, "public_key": null}} is answered by
{"Attestation": {"document": bytes}}, or by {"Error": name}. Both lie in one buffer, whose rest is
whatever was there before. Source: AWS, aws-nitro-enclaves-nsm-api, "Request" and "Response".
"""

from __future__ import annotations

from io import BytesIO

import cbor2

from constellation.base.errors import FormatError, Unavailable

__all__ = ["BUFFER_BYTES", "pack_request", "parse_response"]

BUFFER_BYTES = 8192
"""A document has about 5 KiB, what it includes at most 3."""


def pack_request(nonce: bytes) -> bytes:
    """Write a request for a document with this nonce."""
    asked = {"user_data": None, "nonce": nonce, "public_key": None}
    return cbor2.dumps({"Attestation": asked})


def parse_response(data: bytes) -> bytes:
    """Read the document (COSE_Sign1) from an answer.

    Raises:
        FormatError: not an answer.
        Unavailable: the hypervisor refused.
    """
    try:
        answer: object = cbor2.CBORDecoder(BytesIO(data), max_depth=8, read_size=1).decode()
    except (cbor2.CBORError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise FormatError(f"NSM answer: not CBOR: {error}") from None
    match answer:
        case {"Attestation": {"document": bytes() as document}}:
            return document
        case {"Error": name}:
            raise Unavailable(f"NSM: the hypervisor refused: {str(name)[:60]}")
        case _:
            raise FormatError("NSM answer: neither a document nor an error")
