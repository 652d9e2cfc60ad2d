"""What will the registers of a local node read after a genuine boot? Predicted, not observed.

The local firmware is ours (`attestation.platforms.local_vtpm.firmware_log`): its extends are
folded from zero, once for each command line that a host can need (cgroup v1 and v2).
Source: TCG PC Client Platform Firmware Profile, section 3.3.4; seams.md, "PCRs of the local
flavour".
"""

from __future__ import annotations

import hashlib

from constellation.attestation.platforms import local_vtpm
from constellation.providers.local.daemon.nspawn import command_line

__all__ = ["fold", "predict"]

REGISTERS = (0, 4, 7, 9, 11)
"""What the firmware extends and a policy compares; 8 and 15 belong to a cluster."""

_CGROUP_VERSIONS = (1, 2)
_ZERO = bytes(32)


def predict(image_digest: bytes, os_release: bytes) -> dict[int, tuple[bytes, ...]]:
    """Give PCR -> acceptable SHA-256 values (32 bytes), one or, by command line, two.

    Args:
        image_digest: SHA-256 of the node image's file.
        os_release: the bytes of its /usr/lib/os-release.
    """
    found: dict[int, set[bytes]] = {pcr: set() for pcr in REGISTERS}
    for version in _CGROUP_VERSIONS:
        _log, extends = local_vtpm.firmware_log(image_digest, command_line(version), os_release)
        values = fold(extends)
        for pcr in REGISTERS:
            found[pcr].add(values[pcr])
    return {pcr: tuple(sorted(values)) for pcr, values in found.items()}


def fold(extends: tuple[tuple[int, bytes], ...]) -> dict[int, bytes]:
    """Extend zero registers (TPM 2.0 Part 1, section 17.2): new = SHA-256(old ‖ digest)."""
    values: dict[int, bytes] = {}
    for pcr, digest in extends:
        values[pcr] = hashlib.sha256(values.get(pcr, _ZERO) + digest).digest()
    return values
