"""A release after the one that a cluster was made of: an image of other bytes and the same content.

What differs is the image's digest, and with it register 4. It is published in a copy of this
machine's repository, so that nobody else's clusters see it, and has the Kubernetes versions that
this machine has.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base import clock
from constellation.config.state import read_state
from constellation.config.workspace import Workspace as Files
from constellation.config.workspace import cache_folder
from constellation.config.writer import set_fields
from constellation.image.measure.local import predict
from constellation.image.release_key import ensure_development_key
from constellation.releases.repository import LIFETIMES, Repository
from constellation.trust.release import dump_release, sign_release, version_order

if TYPE_CHECKING:
    from constellation.trust.release import Release
    from tests.cluster.conftest import Workspace

__all__ = ["publish_next", "publish_second"]

_REGISTER = 4
_SITE = "site"


def publish_second(workspace: Workspace, folder: Path) -> tuple[str, str]:
    """Give the versions of the release that the cluster was made of and of one after it.

    `folder` gets the image; `upgrade check` must have published what this machine has.
    """
    site = workspace.folder / _SITE
    shutil.copytree(cache_folder() / "releases" / "development", site)
    conf = workspace.folder / "constellation-conf.yaml"
    fields = {"releases.repository": _SITE, "releases.root": f"{_SITE}/metadata/1.root.json"}
    conf.write_text(set_fields(conf.read_text(), fields))
    return publish_next(workspace, folder)


def publish_next(workspace: Workspace, folder: Path, *, genuine: bool = True) -> tuple[str, str]:
    """Publish one more release; gives the newest before it, and it.

    Not `genuine`: its reference values are another image's, so that none of its nodes is let in.
    """
    key = ensure_development_key(cache_folder())
    repository = Repository(
        folder=workspace.folder / _SITE, keys=(key,), now=clock.now(), lifetimes=LIFETIMES
    )
    before = repository.newest()
    assert before is not None
    image = _longer_image(workspace, folder, before)
    following = _following(before, image, values_of=image if genuine else b"another image")
    data = dump_release(following)
    repository.publish(data, sign_release(data, key))
    return before.version, following.version


def _longer_image(workspace: Workspace, folder: Path, before: Release) -> bytes:
    """Give the cluster's image, longer than that of the release before it; `folder` keeps it."""
    state = read_state(Files(folder=workspace.folder).state)
    assert state is not None
    assert state.image is not None
    own = Path(state.image.path).read_bytes()
    image = own + bytes(before.images[0].size_bytes - len(own) + 4096)
    folder.mkdir()
    (folder / "image.squashfs").write_bytes(image)
    return image


def _following(before: Release, image: bytes, *, values_of: bytes) -> Release:
    digest = hashlib.sha256(values_of).digest()
    values = tuple(v.hex() for v in predict(digest, b"")[_REGISTER])
    (old,) = before.images
    reference = tuple(
        dataclasses.replace(r, registers={**r.registers, _REGISTER: values}) for r in old.reference
    )
    major, minor, patch, _, number = version_order(before.version)
    new = dataclasses.replace(
        old,
        sha256=hashlib.sha256(image).hexdigest(),
        size_bytes=len(image),
        reference=reference,
    )
    return dataclasses.replace(
        before, version=f"{major}.{minor}.{patch}-dev.{number + 1}", images=(new,)
    )
