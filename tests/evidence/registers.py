"""How are published event logs, quotes and measurement lists judged?"""

from __future__ import annotations

import base64
import json
import re
from hashlib import sha384
from typing import TYPE_CHECKING, Any

from constellation.attestation.ima import measurement_list
from constellation.attestation.platforms import td_log
from constellation.attestation.roots import intel
from constellation.attestation.tdx import rtmr
from constellation.attestation.tdx.quote import TdReport10, parse_quote
from constellation.attestation.tdx.verify import verify_signatures
from constellation.attestation.tpm import forms, quote, replay
from constellation.attestation.tpm.eventlog import EventLog
from constellation.attestation.tpm.structures import Alg, Attest, parse_signature
from constellation.base.errors import FormatError, Untrusted
from tests.evidence.chips import Procedure, ask
from tests.evidence.folder import NotKnownError, same
from tests.evidence.machines import nonce_of, quote_files, same_attest, same_registers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from constellation.attestation.kinds import Verdict
    from tests.evidence.folder import Case

__all__ = ["PROCEDURES"]

_BANKS = {"sha256": Alg.SHA256, "sha384": Alg.SHA384, "sha512": Alg.SHA512, "sha1": Alg.SHA1}
"""The one that counts first comes first."""


def _log(case: Case) -> bytes:
    return case.get("binary_bios", "log", "ccel", "tcg event log")


def _registers(case: Case) -> dict[str, dict[str, str]]:
    """Give bank -> register -> value: of the machine, or as another program replayed the log."""
    known = case.expected.get("pcr_banks") or case.values.get("replay")
    return known or {}


# --- TCG event logs


def _judge_log(case: Case) -> EventLog:
    """Verify against the registers of the bank that is asked for, of an unedited log of all."""
    log, known = EventLog.parse(_log(case)), _registers(case)
    asked = case.expect.get("bank")
    banks = [asked] if asked else [b for b in _BANKS if b in known]
    for bank in banks:
        pcrs = {int(n): bytes.fromhex(v) for n, v in known[bank].items()}
        replay.verify(log, bank=_BANKS[bank], pcrs=pcrs)
        ask(case, "event-log", {"log": _log(case), "pcrs": json.dumps(known[bank]).encode()})
    if not banks:
        replay.verify(log, bank=log.banks[0], pcrs={})
    return log


def _compare_log(case: Case, log: EventLog) -> None:
    values = case.values
    assert log.pack() == _log(case)
    header = 0 if log.spec_id is None else 1
    same(
        values,
        n_events=len(log.events) + header,
        algs=[bank.name.lower() for bank in log.banks],
        agile=log.spec_id is not None,
    )
    for bank, expected in (values.get("replay") or {}).items():
        numbers = tuple(int(number) for number in expected)
        found = replay.registers(log, bank=_BANKS[bank], pcrs=numbers)
        assert {str(n): v.hex() for n, v in found.items()} == expected, bank


# --- CC event logs


def _judge_ccel(case: Case) -> EventLog:
    log = td_log.parse_log(_log(case))
    known = case.expected.get("rtmr")
    if known is None:
        replayed = (case.values.get("replay") or {}).get("sha384", {})
        known = {str(int(n) - 1): v for n, v in replayed.items() if int(n)}
    registers = {int(n): bytes.fromhex(v) for n, v in known.items()}
    td_log.verify_log(log, registers=registers)
    return log


def _judge_runtime_log(case: Case) -> Any:
    """Replay a log in JSON to a quote's RTMRs; its notes say how runtime events are hashed."""
    answer = json.loads(case.get("json"))
    signed = verify_signatures(
        parse_quote(bytes.fromhex(answer["quote"])), roots=intel.ROOTS, now=case.now
    )
    events, digests = json.loads(answer["event_log"]), {n: [] for n in range(4)}
    for event in events:
        payload = bytes.fromhex(event["event_payload"])
        text = event["event_type"].to_bytes(4, "little") + b":" + event["event"].encode() + b":"
        made = bytes.fromhex(event["digest"]) or sha384(text + payload).digest()
        digests[event["imr"]].append(made)
    body = signed.quote.body
    assert isinstance(body, TdReport10)
    for number, found in digests.items():
        if rtmr.predict(found) != getattr(body, f"rtmr{number}"):
            raise Untrusted(f"JSON event log: RTMR{number} replays to another value")
    return body, len(events)


def _compare_runtime_log(case: Case, found: Any) -> None:
    body, count = found
    same(case.values, n_events=count)
    for number, value in case.values.get("rtmr", {}).items():
        assert getattr(body, f"rtmr{number}").hex() == value


# --- quotes with a log


def _judge_quote_and_log(case: Case) -> Any:
    """Verify a quote by an AK's public area, and that its log replays.

    One of the SHA-1 bank is refused as such, and authentic for who gives a reason.
    """
    known = {n[5:]: v for n, v in case.values.items() if n.startswith("pcrs_")}
    ak, log = case.get("tpmt_public", "ak"), _log(case)
    found = None
    for bank, values in known.items():
        registers = json.dumps(values).encode()
        files = quote_files(case) | {"pcrs": registers, "ak": ak}
        if bank == "sha1":
            try:
                ask(case, "tpm-quote", files, nonce=nonce_of(case))
            except Untrusted as error:
                assert "SHA-1" in str(error)  # noqa: PT017
        public = forms.parse_ak(ak)
        assert isinstance(public, quote.Public)
        pcrs = {int(n): bytes.fromhex(v) for n, v in values.items()}
        found = quote.verify(
            files["quote"], signature=files["signature"], ak_public=public,
            qualifying_data=nonce_of(case), bank=_BANKS[bank], pcrs=pcrs,
            insecure_sha1_reason="a published vector" if bank == "sha1" else "",
        )  # fmt: skip
        parsed = EventLog.parse(log)
        logged = {event.pcr for event in parsed.events}
        given = {n: v for n, v in found.claims.pcrs.items() if n in logged}
        replay.verify(parsed, bank=_BANKS[bank], pcrs=given)
    assert found is not None, "no registers"
    return found


def _compare_quote_and_log(case: Case, _found: Any) -> None:
    same_attest(case.get("tpms_attest"), case.values.get("tpms_attest", {}))


def _refused(case: Case) -> None:
    """Try every quote and key of a TPM 1.2 as what it would be here: each is refused by name."""
    errors = []
    for data in _quotes_and_keys(case):
        for parse in (Attest.parse, forms.parse_ak):
            try:
                parse(data)
            except FormatError as error:
                errors.append(error)
            else:
                return  # it passes for one of a TPM 2.0
    if not errors:
        raise NotKnownError("no quote or key of a TPM 1.2 among the files")
    # the first that is not by name would be wrong
    raise next((e for e in errors if "TPM 1.2" not in str(e)), errors[0])


def _quotes_and_keys(case: Case) -> Iterator[bytes]:
    """Give the files that are neither logs nor registers; of a dump in JSON the quote and key."""
    for file in case.files:
        if file.data.lstrip().startswith((b"{", b"[")):
            dump = json.loads(file.data)
            parts = dump.items() if isinstance(dump, dict) else ()
            values = {n: v for _, part in parts if isinstance(part, dict) for n, v in part.items()}
            for name in ("Quote", "Public"):
                if isinstance(values.get(name), str):
                    yield base64.b64decode(values[name])
        elif not re.search(r"log|bios|pcr|nonce|signature|pem", f"{file.role} {file.name}"):
            yield file.data


# --- quotes of tpm2-tools


def _judge_attest(case: Case) -> Attest:
    return Attest.parse(case.get("tpms_attest", "quote"))


def _judge_tpm2_tools(case: Case) -> Verdict:
    files = {"quote": case.get("quote.out"), "signature": case.get("quotesig"),
             "ak": case.get("ak.pub", "akpub")}  # fmt: skip
    raw = case.get("quotepcr", "pcr")
    # tpm2-tools before 5.3: TPML_PCR_SELECTION (132 bytes), count, TPML_DIGEST of 66-byte entries
    numbers = Attest.parse(files["quote"]).pcr_select[0].pcrs
    entries = [raw[140 + 66 * i + 2 : 140 + 66 * i + 34] for i in range(len(numbers))]
    pcrs = {str(n): v.hex() for n, v in zip(numbers, entries, strict=True)}
    files["pcrs"] = json.dumps(pcrs).encode()
    return ask(case, "tpm-quote", files, nonce=nonce_of_tools(case, files["quote"]))


def nonce_of_tools(case: Case, message: bytes) -> bytes:
    """Give the nonce that the entry says, else the one in the quote."""
    if "nonce" in case.expect:
        asked: bytes = case.expect["nonce"]
        return asked
    values = case.values.get("tpms_attest")
    return bytes.fromhex(values["extra_data"]) if values else Attest.parse(message).extra_data


def _judge_public(case: Case) -> Any:
    found = forms.parse_ak(case.get("tpmt_public", "tpm2b_public", "ak"))
    if isinstance(found, quote.Public) and (name := case.values.get("name")):
        assert found.name().hex() == name
    return found


# --- IMA


def _judge_ima(case: Case) -> Verdict:
    """Verify a list; an edited one must still reach the registers of the unedited one.

    A violation that was written into a list is in no register: then only its lines are checked.
    """
    files = {"list": case.get("list")}
    original = case.folder.case(case.platform, case.item).get("list")
    violation = case.expect.get("verdict") == "accept" and original != files["list"]
    replayed = measurement_list.replay(measurement_list.parse(original), bank=Alg.SHA256).hex()
    registers = (*(case.values.get(f"pcr10_{b}") for b in ("sha256", "sha1")), replayed)
    known = [v for v in registers if v and any(bytes.fromhex(v))]
    if known and not violation:
        files["pcrs"] = json.dumps({"10": known[0]}).encode()
    return ask(case, "ima", files)


def _compare_ima(case: Case, found: Verdict) -> None:
    entries, values = measurement_list.parse(case.get("list")), case.values
    kinds = [entry.template for entry in entries]
    assert found.claims["entries"] == len(entries)
    same(
        values,
        entries=len(entries),
        violations=found.claims["violations"],
        templates={kind: kinds.count(kind) for kind in set(kinds)},
    )
    for bank in ("sha1", "sha256"):
        expected = values.get(f"pcr10_{bank}")
        if expected and any(bytes.fromhex(expected)):  # a source may not have replayed it
            replayed = measurement_list.replay(entries, bank=_BANKS[bank]).hex()
            assert replayed == expected, bank


PROCEDURES: tuple[tuple[str, str, Procedure], ...] = (
    (".*", "TCG event log.*", Procedure(_judge_log, _compare_log)),
    (".*", "CCEL.*", Procedure(_judge_ccel, _compare_log)),
    (".*", r"TPM 2\.0 quote.*", Procedure(_judge_quote_and_log, _compare_quote_and_log)),
    (
        ".*",
        r"TDX quote \+ JSON event log.*",
        Procedure(_judge_runtime_log, _compare_runtime_log),
    ),
    (".*", r"TPM 1\.2.*", Procedure(_refused)),
    (
        ".*",
        "TPMS_ATTEST.*",
        Procedure(
            _judge_attest, lambda c, f: same_attest(f.pack(), c.values.get("tpms_attest", {}))
        ),
    ),
    (
        ".*",
        "tpm2-tools quote files.*",
        Procedure(_judge_tpm2_tools, lambda c, f: same_registers(f, c.values.get("pcrs_sha256"))),
    ),
    (".*", "TPMT_SIGNATURE.*", Procedure(lambda c: parse_signature(c.get("tpmt_signature")))),
    (".*", "(TPMT|TPM2B)_PUBLIC.*|AK public.*", Procedure(_judge_public)),
    (".*", "IMA.*", Procedure(_judge_ima, _compare_ima)),
)
"""Platform, kind (regular expressions), procedure."""
