"""The local cloud's authority: kept, and early enough for a node whose clock is behind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509

from constellation.crypto.signing import generate_key, spki
from constellation.providers.local.daemon.authority import ensure

if TYPE_CHECKING:
    from pathlib import Path

KEY = spki(generate_key().public_key())


def test_the_authority_is_made_once(tmp_path: Path) -> None:
    first, second = ensure(tmp_path), ensure(tmp_path)
    assert first.certificate_der == second.certificate_der
    assert (tmp_path / "ca.key").stat().st_mode & 0o777 == 0o600


def test_a_node_an_hour_behind_takes_what_its_neighbours_were_given_just_now(
    tmp_path: Path,
) -> None:
    authority, behind = ensure(tmp_path), datetime.now(UTC) - timedelta(minutes=70)
    for der in (authority.certificate_der, authority.certify(KEY)):
        assert x509.load_der_x509_certificate(der).not_valid_before_utc < behind
