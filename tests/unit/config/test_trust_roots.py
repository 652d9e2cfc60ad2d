"""Authorities that a user names: certificates, or nothing is believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_der_x509_certificate

from constellation.base.errors import UserError
from constellation.config.trust_roots import read_trust_roots
from tests.fakes.certificates import Authority
from tests.fakes.tpm import NOW

if TYPE_CHECKING:
    from pathlib import Path


def _pem(der: bytes) -> bytes:
    return load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def test_every_certificate_of_the_file_is_taken(tmp_path: Path) -> None:
    roots = [Authority.root(f"root {n}", now=NOW).der for n in range(2)]
    (tmp_path / "roots.pem").write_bytes(b"".join(map(_pem, roots)))
    assert read_trust_roots(tmp_path, "roots.pem") == tuple(roots)
    assert read_trust_roots(tmp_path, "") == ()


@pytest.mark.parametrize("data", [b"", b"no certificate", b"#" * (64 * 1024 + 1)])
def test_a_file_without_certificates_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "roots.pem").write_bytes(data)
    with pytest.raises(UserError, match="expected certificates"):
        read_trust_roots(tmp_path, "roots.pem")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read"):
        read_trust_roots(tmp_path, "roots.pem")
