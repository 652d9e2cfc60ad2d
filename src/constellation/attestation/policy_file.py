"""A policy as a JSON file: {"claim": {"exactly" | "one_of" | "at_least" | "unchecked": …}}.

Bytes are hexadecimal text, numbers are numbers, the reason of `unchecked` is text. Nothing is
implied: a claim without a rule is a finding, as everywhere.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from constellation.attestation.policy import AtLeast, Exactly, OneOf, Unchecked
from constellation.base.errors import FormatError

if TYPE_CHECKING:
    from constellation.attestation.policy import Policy, Rule

__all__ = ["dump_policy", "parse_policy"]

_MAX_BYTES = 1024 * 1024


def parse_policy(data: bytes) -> Policy:
    """Read a policy file.

    Raises:
        FormatError: not JSON, a duplicate claim, or a rule that is none.
    """
    if len(data) > _MAX_BYTES:
        raise FormatError(f"policy: {len(data)} bytes, at most {_MAX_BYTES} are read")

    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise FormatError("policy: duplicate key")
        return dict(pairs)

    try:
        top = json.loads(data, object_pairs_hook=no_duplicates)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"policy: not JSON: {error}") from None
    if not isinstance(top, dict):
        raise FormatError("policy: not an object of rules")
    return {claim: _rule(claim, value) for claim, value in top.items()}


def dump_policy(policy: Policy) -> bytes:
    """Write a policy file; the inverse of `parse_policy`."""
    rules = {claim: _plain(rule) for claim, rule in sorted(policy.items())}
    return json.dumps(rules, indent=1, ensure_ascii=False).encode() + b"\n"


def _rule(claim: str, value: Any) -> Rule:
    where = f"policy: {claim[:80]}"
    if not isinstance(value, dict) or len(value) != 1:
        raise FormatError(f"{where}: want one of exactly, one_of, at_least, unchecked")
    ((kind, given),) = value.items()
    match kind, given:
        case "exactly", str() | int():
            return Exactly(_value(where, given))
        case "one_of", list():
            return OneOf(tuple(_value(where, v) for v in given))
        case "at_least", int() if not isinstance(given, bool):
            return AtLeast(given)
        case "unchecked", str() if given.strip():
            return Unchecked(given)
        case _:
            raise FormatError(f"{where}: {str(kind)[:20]!r} with {str(given)[:40]!r} is no rule")


def _value(where: str, given: Any) -> bytes | int:
    if isinstance(given, int) and not isinstance(given, bool):
        return given
    if not isinstance(given, str):
        raise FormatError(f"{where}: {str(given)[:40]!r} is neither a number nor hexadecimal")
    try:
        return bytes.fromhex(given)
    except ValueError:
        raise FormatError(f"{where}: {given[:40]!r} is not hexadecimal") from None


def _plain(rule: Rule) -> dict[str, Any]:
    def show(value: bytes | int) -> str | int:
        return value.hex() if isinstance(value, bytes) else value

    match rule:
        case Exactly(value):
            return {"exactly": show(value)}
        case OneOf(values):
            return {"one_of": [show(value) for value in values]}
        case AtLeast(value):
            return {"at_least": value}
        case Unchecked(reason):
            return {"unchecked": reason}
