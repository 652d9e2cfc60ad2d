"""Registers: quotes, event logs, IMA lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.attestation.ima import measurement_list
from constellation.attestation.kinds.request import Found, Given
from constellation.attestation.tpm import forms, quote, replay
from constellation.attestation.tpm.eventlog import EventLog
from constellation.attestation.tpm.public import Public
from constellation.attestation.tpm.structures import Alg
from constellation.base.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["event_log", "ima", "quoted", "tpm_quote"]


def quoted(given: Given, ak: Public | forms.Key) -> Found:
    """Verify a quote of an AK for `--nonce`; with a log, that it replays."""
    pcrs = forms.parse_pcrs(given.files["pcrs"])
    bank = forms.bank_of(pcrs)
    key = quote.public_key(ak) if isinstance(ak, Public) else ak
    signature = forms.parse_any_signature(given.files["signature"], key=key, hash_alg=Alg.SHA256)
    message, nonce = given.files["quote"], given.must("nonce")
    if isinstance(ak, Public):
        found = quote.verify(
            message, signature=signature, ak_public=ak, qualifying_data=nonce, bank=bank, pcrs=pcrs
        ).claims
        lines: tuple[str, ...] = ()
    else:
        found = quote.verify_by_key(
            message, signature=signature, ak=ak, qualifying_data=nonce, bank=bank, pcrs=pcrs
        ).claims
        lines = ("AK attributes: only the key was given; who vouches for it vouches for them",)
    claims: dict[str, bytes | int] = {f"pcr{n}": v for n, v in found.pcrs.items()}
    claims["tpm.firmware_version"] = found.attest.firmware_version
    claims["tpm.reset_count"] = found.attest.clock_info.reset_count
    if (log := given.optional("event_log")) is None:
        lines = (*lines, "event log: none was given")
    else:
        replay.verify(EventLog.parse(log), bank=bank, pcrs=_logged(pcrs))
    return Found(claims=claims, unchecked=lines)


def _logged(pcrs: Mapping[int, bytes]) -> dict[int, bytes]:
    # PCR 10 is IMA's and has a list of its own; 16 and above are not the firmware's
    return {number: value for number, value in pcrs.items() if number < 16 and number != 10}  # noqa: PLR2004


def tpm_quote(given: Given) -> Found:
    """Verify a quote of an AK that nobody vouches for."""
    found = quoted(given, forms.parse_ak(given.files["ak"]))
    line = "AK: nobody vouches for it here: its identity is a claim of whoever gave it"
    return Found(claims=found.claims, unchecked=(line, *found.unchecked))


def event_log(given: Given) -> Found:
    """Verify a log against register values."""
    pcrs = forms.parse_pcrs(given.files["pcrs"])
    log = EventLog.parse(given.files["log"])
    replay.verify(log, bank=forms.bank_of(pcrs), pcrs=pcrs)
    claims: dict[str, bytes | int] = {f"pcr{n}": v for n, v in pcrs.items()}
    return Found(claims=claims, unchecked=("registers: given, not quoted: no TPM signed them",))


def ima(given: Given) -> Found:
    """Verify a measurement list, where given against PCR 10."""
    entries = measurement_list.parse(given.files["list"])
    line = "registers: given, not quoted: no TPM signed them"
    if (data := given.optional("pcrs")) is not None:
        pcrs = forms.parse_pcrs(data)
        if measurement_list.IMA_PCR not in pcrs:
            raise UserError("no value for PCR 10", where="pcrs")
        quoted = pcrs[measurement_list.IMA_PCR]
        bank = forms.bank_of(pcrs)
        entries = measurement_list.verify(entries, bank=bank, quoted=quoted).claims
    else:
        line = "PCR 10: no register was given: only each line's own hash was checked"
    claims: dict[str, bytes | int] = {
        "entries": len(entries),
        "violations": sum(entry.is_violation for entry in entries),
        "pcr10": measurement_list.replay(entries, bank=Alg.SHA256),
    }
    return Found(claims=claims, unchecked=(line,))
