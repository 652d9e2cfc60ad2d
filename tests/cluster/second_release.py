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

__all__ = ["publish_second"]

_REGISTER = 4


def publish_second(workspace: Workspace, folder: Path) -> tuple[str, str]:
    """Give the versions of the release that the cluster was made of and of one after it.

    `folder` gets the image; `upgrade check` must have published what this machine has.
    """
    own = cache_folder() / "releases" / "development"
    site = workspace.folder / "site"
    shutil.copytree(own, site)
    key = ensure_development_key(cache_folder())
    repository = Repository(folder=site, keys=(key,), now=clock.now(), lifetimes=LIFETIMES)
    first = repository.newest()
    assert first is not None
    second = _second_release(workspace, first, folder)
    data = dump_release(second)
    repository.publish(data, sign_release(data, key))
    conf = workspace.folder / "constellation-conf.yaml"
    fields = {"releases.repository": "site", "releases.root": "site/metadata/1.root.json"}
    conf.write_text(set_fields(conf.read_text(), fields))
    return first.version, second.version


def _second_release(workspace: Workspace, first: Release, folder: Path) -> Release:
    state = read_state(Files(folder=workspace.folder).state)
    assert state is not None
    assert state.image is not None
    image = Path(state.image.path).read_bytes() + bytes(4096)
    folder.mkdir()
    (folder / "image.squashfs").write_bytes(image)
    digest = hashlib.sha256(image).digest()
    values = tuple(v.hex() for v in predict(digest, b"")[_REGISTER])
    (old,) = first.images
    reference = tuple(
        dataclasses.replace(r, registers={**r.registers, _REGISTER: values}) for r in old.reference
    )
    major, minor, patch, _, number = version_order(first.version)
    return dataclasses.replace(
        first,
        version=f"{major}.{minor}.{patch}-dev.{number + 1}",
        images=(
            dataclasses.replace(
                old, sha256=digest.hex(), size_bytes=len(image), reference=reference
            ),
        ),
    )
