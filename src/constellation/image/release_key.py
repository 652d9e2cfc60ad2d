"""Who signs images that this machine builds itself? A development release key, made on first use.

It stays in the cache folder, readable by the user alone, and is refused by every real provider
(design, section 7): whoever can write the user's cache can also replace the images in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.base.files import write_atomic
from constellation.base.secret import Secret
from constellation.crypto import signing

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

__all__ = ["ensure_development_key"]


def ensure_development_key(cache: Path) -> EllipticCurvePrivateKey:
    """Give the development release key of this cache (ECDSA P-256); made if there is none.

    Raises:
        FormatError: the file is there but holds no such key.
    """
    path = cache / "keys" / "release-development.pem"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(path, signing.dump_private_key(signing.generate_key()).reveal(), mode=0o600)
    return signing.load_private_key(Secret(path.read_bytes()))
