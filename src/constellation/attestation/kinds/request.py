"""What a verification of files is asked for, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from constellation.attestation import chain
from constellation.base.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from cryptography import x509

    from constellation.attestation.model import Claims

__all__ = ["OPTIONS", "QUOTE", "Found", "Given", "Kind", "Verdict", "require_together"]

QUOTE = ("quote", "signature", "pcrs")
"""Roles of a quote: all or none."""

OPTIONS = ("roots", "crl", "collateral", "nonce", "report_data")
"""Fields of `Given` that a kind may not look at: one that it would ignore is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a verification is asked for.

    `files` role -> content; `roots` authorities (PEM or DER) instead of the published ones, none:
    those; `nonce` and `report_data` what the evidence must have been made for; None: not given.
    """

    files: Mapping[str, bytes]
    now: datetime
    roots: tuple[bytes, ...] = ()
    crl: bytes | None = None
    collateral: bytes | None = None
    nonce: bytes | None = None
    report_data: bytes | None = None

    def optional(self, role: str) -> bytes | None:
        """Give the content of a role, if it was given."""
        return self.files.get(role)

    def authorities(self, published: tuple[bytes, ...]) -> tuple[x509.Certificate, ...]:
        """Give the trusted certificates."""
        given = self.roots or published
        return tuple(c for data in given for c in chain.load_all(data, what="root"))

    def must(self, name: str) -> bytes:
        """Give `nonce` or `report_data`.

        Raises:
            UserError: it was not given: nothing is verified for nobody.
        """
        value: bytes | None = getattr(self, name)
        if value is None:
            option = "--" + name.replace("_", "-")
            raise UserError(
                f"{option} is required for this kind of evidence",
                where=option,
                hint="hexadecimal; empty ('') only for evidence that was made without one",
            )
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Evidence whose every check that could be made holds.

    Its claims, and a line for everything that went unchecked, with why.
    """

    kind: str
    claims: Claims
    unchecked: tuple[str, ...]
    appraised: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a procedure gives: authentic claims, and what it could not check."""

    claims: Claims
    unchecked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind: its roles, and the procedure.

    `wants` names the options that it cannot do without, `takes` those that it may be given;
    `with_role` names for an option of `takes` the role without which nothing would look at it.
    """

    about: str
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    with_role: Mapping[str, str] = field(default_factory=dict)
    procedure: Callable[[Given], Found] = field(repr=False)


def require_together(given: Given) -> None:
    """Check that a quote that was given is complete.

    Raises:
        UserError: a role is missing.
    """
    if missing := [role for role in QUOTE if role not in given.files]:
        raise UserError(f"role {missing[0]} is missing beside the quote", where="ROLE=FILE")
