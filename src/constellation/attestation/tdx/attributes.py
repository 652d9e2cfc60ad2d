"""What each bit of a TD's attributes means, and which of them let the host look in.

Source: "Intel TDX Module 1.5 ABI specification", table "ATTRIBUTES definition"; the groups are TUD
(TD under debug, bits 0 to 7: any of them and the host may see the TD's state), SEC (8 to 31:
security properties) and OTHER (32 to 63).
"""

from __future__ import annotations

from enum import IntFlag

__all__ = ["TdAttribute", "reserved_bits"]


class TdAttribute(IntFlag):
    """TD attributes, bit by bit."""

    DEBUG = 1 << 0
    """The host may read and change the TD's memory and registers."""
    HGS_PLUS_PROF = 1 << 4
    """The host may profile the TD with hardware guided scheduling."""
    PERF_PROF = 1 << 5
    """The host may profile the TD with performance counters."""
    PMT_PROF = 1 << 6
    """The host may profile the TD with platform monitoring."""
    ICSSD = 1 << 16
    """Used by newer modules only; no image of ours is started with it."""
    LASS = 1 << 27
    """The TD may use linear address space separation."""
    SEPT_VE_DISABLE = 1 << 28
    """A page that the host takes away stops the TD; it raises no #VE to be mishandled."""
    MIGRATABLE = 1 << 29
    """A migration TD may move the TD, with its memory, to another platform."""
    PKS = 1 << 30
    """The TD may use supervisor protection keys."""
    KL = 1 << 31
    """The TD may use Key Locker."""
    TPA = 1 << 62
    """The TD is a TD provisioning agent."""
    PERFMON = 1 << 63
    """The TD may use performance counters."""


def reserved_bits(attributes: int) -> int:
    """Give the bits that the specification does not name."""
    known = 0
    for attribute in TdAttribute:
        known |= int(attribute)
    return attributes & ~known
