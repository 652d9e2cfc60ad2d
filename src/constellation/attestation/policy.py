"""Appraisal policy for evidence: one named rule for every claim, none by omission.

There is no "not set". A claim that the policy does not care about says so, with a reason, and the
result carries that reason to the relying party. Source: RFC 9334, section 8.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from constellation.base.errors import Rejected

if TYPE_CHECKING:
    from constellation.attestation.model import Claims

__all__ = [
    "AtLeast",
    "Exactly",
    "OneOf",
    "Policy",
    "Rule",
    "Unchecked",
    "describe",
    "findings",
    "require",
]


@dataclass(frozen=True, slots=True)
class Exactly:
    """The claim equals a reference value."""

    value: bytes | int


@dataclass(frozen=True, slots=True)
class OneOf:
    """The claim equals one of several reference values; an empty tuple accepts nothing."""

    values: tuple[bytes | int, ...]


@dataclass(frozen=True, slots=True)
class AtLeast:
    """The claim is a version number that must not go below this one."""

    value: int


@dataclass(frozen=True, slots=True)
class Unchecked:
    """The claim is accepted whatever it is, and here is why."""

    reason: str


Rule = Exactly | OneOf | AtLeast | Unchecked
Policy = Mapping[str, Rule]


def findings(policy: Policy, claims: Claims) -> tuple[str, ...]:
    """Name every way in which `claims` fall short of `policy`; empty if they do not.

    A claim without a rule is a finding, and so is a rule without a claim.
    """
    found = [f"{name}: no rule" for name in claims.keys() - policy.keys()]
    found += [f"{name}: claim absent" for name in policy.keys() - claims.keys()]
    for name in policy.keys() & claims.keys():
        rule, claim = policy[name], claims[name]
        if not _holds(rule, claim):
            found.append(f"{name}: found {_show(claim)}, expected {_wanted(rule)}")
    return tuple(sorted(found))


def require(policy: Policy, claims: Claims) -> tuple[str, ...]:
    """Give a line for each claim that went unchecked, or refuse.

    Raises:
        Rejected: with every finding.
    """
    if found := findings(policy, claims):
        raise Rejected(found)
    return tuple(f"{n}: {r.reason}" for n, r in sorted(policy.items()) if isinstance(r, Unchecked))


def describe(policy: Policy) -> tuple[str, ...]:
    """Give one line a claim, in order of the names: what it must be, or why it does not matter."""
    return tuple(f"{name}: {_wanted(rule)}" for name, rule in sorted(policy.items()))


def _holds(rule: Rule, claim: bytes | int) -> bool:
    match rule:
        case Exactly(value):
            return type(claim) is type(value) and claim == value
        case OneOf(values):
            return any(type(claim) is type(v) and claim == v for v in values)
        case AtLeast(value):
            return isinstance(claim, int) and claim >= value
        case Unchecked():
            return True
        case _:
            assert_never(rule)


def _wanted(rule: Rule) -> str:
    match rule:
        case Exactly(value):
            return _show(value)
        case OneOf(values):
            return "one of " + ", ".join(map(_show, values)) if values else "nothing (empty set)"
        case AtLeast(value):
            return f"at least {value}"
        case Unchecked(reason):
            return f"anything ({reason})"
        case _:
            assert_never(rule)


def _show(claim: bytes | int) -> str:
    if isinstance(claim, int):
        return str(claim)
    # words (a TCB status) are shown as such; quotes keep them apart from hexadecimal
    words = claim.isascii() and claim.decode().isprintable()
    return repr(claim.decode()) if words else claim.hex()
