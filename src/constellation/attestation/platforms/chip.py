"""How a chip's report commits to a channel and to the device that has the registers.

Where registers come from a vTPM or a hypervisor's document, the chip's report data is SHA-512 over
a label, the binding and that companion. Without the companion a report and a quote of two machines
could be put together; without the binding both could be replayed.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from constellation.base.errors import Untrusted

if TYPE_CHECKING:
    from constellation.attestation.model import Binding

__all__ = ["check_report_data", "report_data"]

_LABEL = b"constellation-report-data-v1"


def report_data(binding: Binding, *, companion: bytes) -> bytes:
    """Give the 64 bytes to be signed: SHA-512 of label, binding, companion, each with its length.

    `companion` is the AK's TPMT_PUBLIC, or a Nitro document.
    """
    parts = (_LABEL, binding, companion)
    joined = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return hashlib.sha512(joined).digest()


def check_report_data(found: bytes, binding: Binding, *, companion: bytes) -> None:
    """Check an authentic report's 64 bytes.

    Raises:
        Untrusted: they commit to another channel or another companion.
    """
    expected = report_data(binding, companion=companion)
    if not hmac.compare_digest(found, expected):
        raise Untrusted(f"report data {found.hex()}, this channel and device have {expected.hex()}")
