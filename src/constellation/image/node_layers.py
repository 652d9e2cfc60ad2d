"""What do all node images have in common? Packages, wheels, programs and files: the same layers.

The local cloud's image and a VM's differ in what is laid on top (units, kernel, devices) and in
what is made of the streams (`build`, `machine`); what they hold of this project is the same.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base import clock, decode
from constellation.base.errors import FormatError
from constellation.crypto import signing
from constellation.image import programs, wheels
from constellation.image.base_root import ensure_base_root
from constellation.image.development_release import ensure_development_repository
from constellation.image.layers import compiled, wheels_layer
from constellation.image.manifest import Content
from constellation.image.release_key import ensure_development_key
from constellation.image.sources import os_folder, package_folder
from constellation.image.tools import ensure_tools_root
from constellation.image.tree import Entry, pack

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from constellation.base.progress import Report
    from constellation.image.base_root import BaseRoot
    from constellation.image.packages import Deb

__all__ = ["NodeLayers", "contents", "node_layers", "os_release"]

_PYTHON = programs.NODE_PYTHON.lstrip("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLayers:
    """The lower layers of a node image, and what the top one is made of."""

    tools: Path
    base: BaseRoot
    wheels: tuple[wheels.Wheel, ...]
    wheel_stream: Path
    programs: tuple[str, ...]
    private_key: EllipticCurvePrivateKey
    release_root: bytes

    @property
    def time(self) -> int:
        """The time of every file, seconds since 1970."""
        return self.base.packages.time

    @property
    def wheel_contents(self) -> tuple[Content, ...]:
        """The wheels, for a manifest."""
        return tuple(
            Content(name=w.name, version=w.version, sha256=w.sha256.hex()) for w in self.wheels
        )

    def copy_sources(self, target: Path, *, without: frozenset[str] = frozenset()) -> None:
        """Copy the import closure of the node programs to `target`, without these modules."""
        programs.copy_sources(package_folder(), self.programs, target=target, without=without)

    def system(self, units: str, *, more: tuple[Entry, ...] = ()) -> tuple[Entry, ...]:
        """Give launchers, units and files of os/, the same in every version.

        `units` is the text of os/units.txt, or of more such lists; `more` are units and files
        that come with them, instead of those of os/tree with the same path.
        """
        replaced = {entry.path for entry in more}
        own = programs.file_entries(os_folder() / "units", below="usr/lib/systemd/system")
        names = tuple(
            Path(e.path).name for e in (*own, *more) if e.path.endswith((".service", ".path"))
        )
        return (
            *own,
            *more,
            *programs.system_entries(units, units=names),
            *(
                entry
                for entry in programs.file_entries(os_folder() / "tree", below="")
                if entry.path not in replaced
            ),
            *(
                Entry(
                    path=f"usr/lib/constellation/bin/{name}",
                    data=programs.launcher(name, python=(programs.NODE_PYTHON,)),
                    executable=True,
                )
                for name in self.programs
            ),
        )

    def key_parts(self, work: Path, system: tuple[Entry, ...]) -> tuple[bytes, ...]:
        """Give what an image of these layers, sources in `work` and `system` is made of."""
        sources = programs.file_entries(work, below=_PYTHON)
        packed = pack((*sources, *system), time=self.time, existing=frozenset())
        public_key = signing.spki(self.private_key.public_key())
        lower = (_digest(self.base.stream), _digest(self.wheel_stream))
        return (*lower, public_key, self.release_root, packed)

    async def streams(
        self, work: Path, system: tuple[Entry, ...], *, name: str, version: str
    ) -> tuple[bytes, ...]:
        """Give the tar streams of all layers; the sources in `work` are compiled.

        Raises:
            FormatError: a file comes from two layers.
            Unavailable: the compiler failed.
        """
        entries = await compiled(work, below=_PYTHON, tools=self.tools)
        top = (*entries, *system, *self._identity(name, version))
        if both := sorted({e.path for e in top} & self.base.names):
            raise FormatError(
                f"/{both[0]} comes from a package and from os/", hint="prune it in image.root_build"
            )
        existing = self.base.folders | {"usr/lib/constellation", _PYTHON}
        layer = pack(top, time=self.time, existing=existing)
        lower = [
            await asyncio.to_thread(path.read_bytes)
            for path in (self.base.stream, self.wheel_stream)
        ]
        return (*lower, layer)

    def _identity(self, name: str, version: str) -> tuple[Entry, ...]:
        about = {
            "name": name,
            "version": version,
            "build_time": self.time,
            "release_public_key": signing.spki(self.private_key.public_key()),
        }
        return (
            Entry(path="usr/lib/constellation/image.json", data=decode.dump(about)),
            Entry(path="usr/lib/constellation/release-root.json", data=self.release_root),
            Entry(path="usr/lib/os-release", data=os_release(name, version)),
            Entry(path="etc/os-release", link="../usr/lib/os-release"),
        )


async def node_layers(cache: Path, report: Report) -> NodeLayers:
    """Have the lower layers for the present sources in the cache.

    Raises:
        Unavailable: packages could not be fetched or installed, or a tool failed.
        UserError: the host lacks Debian's archive keyring or a mirror.
        FormatError: a source, list or lock cannot be read.
    """
    tools = await ensure_tools_root(cache, report)
    base = await ensure_base_root(cache, report)
    private_key = ensure_development_key(cache)
    folder = cache / "image" / "wheels"
    found = await wheels.fetch(os_folder() / "requirements-node.lock", folder=folder, report=report)
    wheel_stream = await wheels_layer(
        found, folder=folder, below=_PYTHON, tools=tools, time=base.packages.time,
        existing=base.folders, report=report,
    )  # fmt: skip
    repository = await asyncio.to_thread(ensure_development_repository, cache, now=clock.now())
    return NodeLayers(
        tools=tools,
        base=base,
        wheels=found,
        wheel_stream=wheel_stream,
        programs=programs.present(package_folder(), programs.NODE_PROGRAMS),
        private_key=private_key,
        release_root=repository.pinned_root,
    )


def os_release(name: str, version: str) -> bytes:
    """Give a node's os-release (os-release(5)): it is measured into PCR 11."""
    return (
        'NAME="Constellation node"\n'
        f'PRETTY_NAME="Constellation node {version} (Debian 13)"\n'
        "ID=constellation\n"
        "ID_LIKE=debian\n"
        'VERSION_ID="13"\n'
        f"IMAGE_ID={name}\n"
        f"IMAGE_VERSION={version}\n"
    ).encode()


def contents(debs: tuple[Deb, ...]) -> tuple[Content, ...]:
    """Give packages as a manifest names them."""
    return tuple(Content(name=d.name, version=d.version, sha256=d.sha256.hex()) for d in debs)


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
