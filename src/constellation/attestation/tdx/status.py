"""The words that Intel says of a TCB, and how two of them make one.

A status is a set of faults: out of date, not configured as advised, software not hardened. Parts
(platform, TDX module, quoting enclave) are judged apart, and the faults of all count; what is out
of date makes missing hardening moot, as the service's own tables do. Source: "Intel SGX and Intel
TDX Provisioning Certification Service API", version 4, "tcbStatus"; "Intel SGX DCAP Quote
Verification", convergence of TCB status.
"""

from __future__ import annotations

from enum import IntFlag, StrEnum

__all__ = ["TcbStatus", "converge"]


class TcbStatus(StrEnum):
    """What Intel says of a TCB level."""

    UP_TO_DATE = "UpToDate"
    SW_HARDENING_NEEDED = "SWHardeningNeeded"
    CONFIGURATION_NEEDED = "ConfigurationNeeded"
    CONFIGURATION_AND_SW_HARDENING_NEEDED = "ConfigurationAndSWHardeningNeeded"
    OUT_OF_DATE = "OutOfDate"
    OUT_OF_DATE_CONFIGURATION_NEEDED = "OutOfDateConfigurationNeeded"
    REVOKED = "Revoked"


class _Fault(IntFlag):
    HARDENING = 1
    CONFIGURATION = 2
    OUT_OF_DATE = 4
    REVOKED = 8


_FAULTS = {
    TcbStatus.UP_TO_DATE: _Fault(0),
    TcbStatus.SW_HARDENING_NEEDED: _Fault.HARDENING,
    TcbStatus.CONFIGURATION_NEEDED: _Fault.CONFIGURATION,
    TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED: _Fault.CONFIGURATION | _Fault.HARDENING,
    TcbStatus.OUT_OF_DATE: _Fault.OUT_OF_DATE,
    TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED: _Fault.OUT_OF_DATE | _Fault.CONFIGURATION,
    TcbStatus.REVOKED: _Fault.REVOKED,
}
_STATUSES = {faults: status for status, faults in _FAULTS.items()}


def converge(*statuses: TcbStatus) -> TcbStatus:
    """Give the one status that has the faults of all."""
    faults = _Fault(0)
    for status in statuses:
        faults |= _FAULTS[status]
    if _Fault.REVOKED in faults:
        return TcbStatus.REVOKED
    if _Fault.OUT_OF_DATE in faults:
        faults &= ~_Fault.HARDENING
    return _STATUSES[faults]
