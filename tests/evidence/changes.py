"""How are bytes, collateral, event logs and lists changed, by the words of mutations.json?

Plain functions of bytes; None: the change is not known here.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from constellation.attestation.tdx.endorsements import Collateral
from constellation.attestation.tpm.eventlog import STARTUP_LOCALITY, Event, EventLog, EventType
from tests.evidence.folder import Case, at

if TYPE_CHECKING:
    from collections.abc import Callable

    Op = dict[str, Any]

__all__ = ["ON_BYTES", "bundles", "of_collateral", "of_events", "of_lines"]

_P384_ORDER = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    16,
)
_REPORT_S = slice(744, 816)
"""S of an SNP report's signature, little-endian."""


def _xor(data: bytes, op: Op) -> bytes:
    out = bytearray(data)
    out[op["offset"]] ^= op["mask"]
    return bytes(out)


def _set(data: bytes, op: Op) -> bytes:
    new, start = bytes.fromhex(op["hex"]), op["offset"]
    return data[:start] + new + data[start + len(new) :]


def _zero(data: bytes, op: Op) -> bytes:
    return _set(data, {"offset": op["offset"], "hex": "00" * op["length"]})


def _truncate(data: bytes, op: Op) -> bytes:
    return data[: op["length"]]


def _append(data: bytes, op: Op) -> bytes:
    return data + bytes.fromhex(op["hex"])


def _negate_s(data: bytes, _op: Op) -> bytes:
    s = _P384_ORDER - int.from_bytes(data[_REPORT_S], "little")
    return data[: _REPORT_S.start] + s.to_bytes(72, "little") + data[_REPORT_S.stop :]


def _json(data: bytes, op: Op) -> bytes:
    top = json.loads(data)
    *parents, last = str(op["path"]).split(".")
    where = top
    for parent in parents:
        where = where[parent]
    if op.get("remove"):
        del where[last]
    elif "value" in op:
        where[last] = op["value"]
    else:
        where[last] = _xor(
            bytes.fromhex(where[last]), {"offset": 0, "mask": op["xor_first_byte"]}
        ).hex()
    return json.dumps(top).encode()


ON_BYTES: dict[str, Callable[[bytes, Op], bytes]] = {
    "xor": _xor,
    "set": _set,
    "zero": _zero,
    "truncate": _truncate,
    "append": _append,
    "negate_s": _negate_s,
    "json": _json,
}
"""Operations on one file."""


def of_events(data: bytes, op: Op, *, padded: bool) -> bytes:
    """Change the list of a log's events; an index counts the header as event 0."""
    log = EventLog.parse(data, padded=padded)
    first = 0 if log.spec_id is None else 1
    events = list(log.events)
    match op["op"]:
        case "remove_event":
            del events[op["index"] - first]
        case "swap_events":
            one, two = (i - first for i in op["indices"])
            events[one], events[two] = events[two], events[one]
        case _:
            assert "StartupLocality" in op["event"], op["event"]
            locality = int(op["event"].rpartition(" ")[2])
            banks = log.spec_id.banks if log.spec_id else ((log.banks[0], 20),)
            late = Event(
                pcr=0,
                type=EventType.EV_NO_ACTION,
                digests=tuple((bank, bytes(size)) for bank, size in banks),
                data=STARTUP_LOCALITY + bytes([locality]),
            )
            events.insert(op["before"] - first, late)
    return replace(log, events=tuple(events)).pack()


def of_lines(data: bytes, change: str) -> bytes | None:
    """Change an IMA list as a sentence says."""
    lines = data.splitlines(keepends=True)
    numbers = [int(n) for n in re.findall(r"\bentr(?:y|ies) (\d+)|\b(?:first|and) (\d+)", change)
               for n in n if n]  # fmt: skip
    index = numbers[0] - 1 if numbers else 0
    if not 0 <= index < len(lines):
        return None
    fields = lines[index].rstrip(b"\n").split(b" ")
    words = change.lower()
    before, after = lines[:index], lines[index + 1 :]
    for verb, made in (
        ("drop entry", before + after),
        ("remove entry", before + after),
        ("repeat entry", [*before, lines[index], lines[index], *after]),
        ("keep the first", [*before, lines[index]]),
        ("swap entries", _swapped(lines, numbers)),
    ):
        if words.startswith(verb):
            return b"".join(made) if made is not None else None
    if "path of entry" in words:
        fields[4] += b"x"
    elif "nibble of the file digest" in words:
        fields[3] = _other_nibble(fields[3])
    elif "nibble of the template hash" in words:
        fields[1] = _other_nibble(fields[1])
    elif words.startswith("all-zero template hash"):
        algorithm, _, digest = fields[3].rpartition(b":")
        fields[1] = b"0" * len(fields[1])
        fields[3] = algorithm + b":" + b"0" * len(digest)
    else:
        return None
    lines[index] = b" ".join(fields) + b"\n"
    return b"".join(lines)


def _swapped(lines: list[bytes], numbers: list[int]) -> list[bytes] | None:
    if len(numbers) != 2 or max(numbers) > len(lines):
        return None
    one, two = (number - 1 for number in numbers)
    found = list(lines)
    found[one], found[two] = lines[two], lines[one]
    return found


def _other_nibble(text: bytes) -> bytes:
    return text[:-1] + (b"1" if text[-1:] == b"0" else b"0")


def _flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def bundles(case: Case) -> list[tuple[dict[str, Any], Collateral]]:
    """Give the entries of all collateral in the folder, and what they hold."""
    found = []
    for platform, item in case.folder.items():
        if item["kind"].startswith("collateral"):
            data = case.folder.case(platform, item).get("bundle")
            found.append((item, Collateral.parse(data)))
    return found


def _other_digit(body: bytes) -> bytes:
    """Change the last digit of a statement: the form stays, the meaning does not."""
    last = max(i for i, byte in enumerate(body) if chr(byte).isdigit())
    return body[:last] + bytes([body[last] ^ 1]) + body[last + 1 :]


def _with_spaces(body: bytes) -> bytes:
    return json.dumps(json.loads(body)).encode()


_PARTS = {
    "tcbinfo": ("tcb_info", "tcb_info_signature"),
    "qe-identity": ("qe_identity", "qe_identity_signature"),
    "pck-crl": ("pck_crl", "pck_crl"),
    "root-crl": ("root_ca_crl", "root_ca_crl"),
    "tcb-chain": ("tcb_info_issuer_chain", "tcb_info_issuer_chain"),
    "qe-chain": ("qe_identity_issuer_chain", "qe_identity_issuer_chain"),
}
"""Part of collateral by its name in edits: its field, and the one that ends in a signature."""


def of_collateral(case: Case, change: str) -> bytes | None:
    """Change collateral as a word says; parts of other platforms come from other entries."""
    base, values = Collateral.parse(case.get("bundle")), case.values
    others = [
        (item["values"], c)
        for item, c in bundles(case)
        if item["values"]["fmspc"].lower() != values["fmspc"].lower()
    ]

    def of(tee: str) -> Collateral:
        """Give collateral of another platform, of a time as near as there is."""
        mine = at(values["valid_to"])
        fit = [(abs(at(v["valid_to"]) - mine), n) for n, (v, _) in enumerate(others)
               if v["tee"] == tee]  # fmt: skip
        assert fit, f"no other collateral for {tee}"
        return others[min(fit)[1]][1]

    def oldest() -> Collateral:
        return min(others, key=lambda other: at(other[0]["valid_to"]))[1]

    def tcb_info(theirs: Collateral) -> Collateral:
        return replace(
            base,
            tcb_info=theirs.tcb_info,
            tcb_info_signature=theirs.tcb_info_signature,
            tcb_info_issuer_chain=theirs.tcb_info_issuer_chain,
        )

    def qe_identity(theirs: Collateral) -> Collateral:
        return replace(
            base,
            qe_identity=theirs.qe_identity,
            qe_identity_signature=theirs.qe_identity_signature,
            qe_identity_issuer_chain=theirs.qe_identity_issuer_chain,
        )

    def other_ca() -> Collateral:
        fit = [c for v, c in others if v["pck_ca"] != values["pck_ca"]]
        assert fit, "no collateral of the other PCK CA"
        return replace(base, pck_crl=fit[0].pck_crl)

    def without(name: str) -> Collateral:
        return replace(base, **{name: b""})

    def flipped_last(name: str) -> Collateral:
        return replace(base, **{name: _flipped(getattr(base, name))})

    leaf = b"".join(base.tcb_info_issuer_chain.partition(b"-----END CERTIFICATE-----\n")[:2])
    changed: dict[str, Callable[[], Collateral]] = {
        "tcbinfo-body": lambda: replace(base, tcb_info=_other_digit(base.tcb_info)),
        "tcbinfo-reserialised": lambda: replace(base, tcb_info=_with_spaces(base.tcb_info)),
        "qe-identity-body": lambda: replace(base, qe_identity=_other_digit(base.qe_identity)),
        "qe-identity-reserialised": lambda: replace(
            base, qe_identity=_with_spaces(base.qe_identity)
        ),
        "qe-identity-of-sgx": lambda: qe_identity(of("SGX")),
        "tcbinfo-other-fmspc": lambda: tcb_info(of("TDX")),
        "tcbinfo-sgx-for-tdx": lambda: tcb_info(of("SGX")),
        "pck-crl-processor-for-platform": other_ca,
        "pck-crl-platform-for-processor": other_ca,
        "tcb-chain-leaf-only": lambda: replace(base, tcb_info_issuer_chain=leaf),
        "stale-collateral": lambda: base,
        "future-collateral": lambda: base,
        "old-signing-cert-2026": oldest,
    }
    part, _, what = change.rpartition("-")
    if part in _PARTS and what == "signature":
        return flipped_last(_PARTS[part][1]).dump()
    if part in _PARTS and what == "missing":
        return without(_PARTS[part][0]).dump()
    return changed[change]().dump() if change in changed else None
