"""How do the node image and the services bundle come about? In layers; only the lowest needs root.

1. base root: Debian's packages (os/packages.txt), installed by `root_build`
2. wheels of os/requirements-node.lock, compiled
3. the node programs' import closure, launchers, units and files of os/, image.json, os-release

joined as tar streams and squashed. Each layer is kept by the digest of what it was made of, the
result by the digest of all, so a changed program costs one compilation and one mksquashfs.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base import clock, decode
from constellation.base.errors import FormatError
from constellation.crypto import signing
from constellation.image import programs, wheels
from constellation.image.base_root import ensure_base_root
from constellation.image.development_release import ensure_development_repository
from constellation.image.layers import compiled, squash, wheels_layer
from constellation.image.manifest import Content
from constellation.image.release_key import ensure_development_key
from constellation.image.sources import os_folder, package_folder
from constellation.image.store import NodeImage, Plan, ServicesBundle, ensure
from constellation.image.tools import ensure_tools_root
from constellation.image.tree import Entry, pack

if TYPE_CHECKING:
    from constellation.base.progress import Report
    from constellation.image.base_root import BaseRoot
    from constellation.image.wheels import Wheel

__all__ = [
    "NodeImage",
    "ServicesBundle",
    "ensure_node_image",
    "ensure_services_bundle",
    "ensure_tools_root",
]

NODE_NAME = "constellation-node-local"
BUNDLE_NAME = "constellation-services"
# part of every key: what this module does with its input
_RECIPE = b"1"


async def ensure_node_image(cache: Path, report: Report) -> NodeImage:
    """Give the node image for the present sources, built if the cache has no authentic one.

    Raises:
        Unavailable: packages could not be fetched or installed, or a tool failed.
        UserError: the host lacks Debian's archive keyring or a mirror.
        FormatError: a source, list or lock cannot be read.
    """
    tools = await ensure_tools_root(cache, report)
    base = await ensure_base_root(cache, report)
    private_key = ensure_development_key(cache)
    folder = cache / "image" / "wheels"
    lock = os_folder() / "requirements-node.lock"
    found = await wheels.fetch(lock, folder=folder, report=report)
    time = base.packages.time
    python = programs.NODE_PYTHON.lstrip("/")
    wheel_stream = await wheels_layer(
        found, folder=folder, below=python, tools=tools, time=time, existing=base.folders,
        report=report,
    )  # fmt: skip
    names = programs.present(package_folder(), programs.NODE_PROGRAMS)
    public_key = signing.spki(private_key.public_key())
    repository = await asyncio.to_thread(ensure_development_repository, cache, now=clock.now())
    root = repository.pinned_root
    with tempfile.TemporaryDirectory(dir=cache / "image", prefix=".node-") as work:
        await asyncio.to_thread(programs.copy_sources, package_folder(), names, target=Path(work))
        system = _system(names)
        sources = programs.file_entries(Path(work), below=python)
        inputs = (_digest(base.stream), _digest(wheel_stream), public_key, root,
                  pack((*sources, *system), time=time, existing=frozenset()))  # fmt: skip

        async def make(output: Path, version: str) -> None:
            compiled_entries = await compiled(Path(work), below=python, tools=tools)
            identity = _identity(version, time=time, public_key=public_key, root=root)
            top = (*compiled_entries, *system, *identity)
            _no_collision(top, base)
            existing = base.folders | {"usr/lib/constellation", python}
            layer = pack(top, time=time, existing=existing)
            lower = [await asyncio.to_thread(p.read_bytes) for p in (base.stream, wheel_stream)]
            await squash((*lower, layer), output, tools=tools, time=time)

        plan = Plan(
            name=NODE_NAME,
            key=_key(inputs),
            time=time,
            debs=tuple(
                Content(name=d.name, version=d.version, sha256=d.sha256.hex())
                for d in base.packages.debs
            ),
            wheels=_wheel_contents(found),
            make=make,
            os_release=_os_release,
        )
        return await ensure(plan, cache / "image", private_key, report)


async def ensure_services_bundle(cache: Path, report: Report) -> ServicesBundle:
    """Give the services bundle for the present sources, built if the cache has no authentic one.

    It holds `python/` (the services' import closure; their wheels are the node image's), `bin/`
    (launchers) and the files of os/services/. Its times are zero: it depends on sources alone.

    Raises:
        Unavailable: a tool failed, or the tools root could not be made.
        FormatError: a source cannot be read.
    """
    tools = await ensure_tools_root(cache, report)
    private_key = ensure_development_key(cache)
    names = programs.present(package_folder(), programs.BUNDLE_PROGRAMS)
    with tempfile.TemporaryDirectory(dir=cache / "image", prefix=".services-") as work:
        await asyncio.to_thread(programs.copy_sources, package_folder(), names, target=Path(work))
        files = (
            *programs.file_entries(os_folder() / "services", below=""),
            *(
                Entry(
                    path=f"bin/{name}",
                    data=programs.launcher(
                        name, python=(programs.BUNDLE_PYTHON, programs.NODE_PYTHON)
                    ),
                    executable=True,
                )
                for name in names
            ),
        )
        sources = programs.file_entries(Path(work), below="python")
        inputs = (pack((*sources, *files), time=0, existing=frozenset()), tools.name.encode())

        async def make(output: Path, version: str) -> None:
            # compiled as what it is at run time: below the mount point
            below = programs.BUNDLE_PYTHON.lstrip("/")
            found = await compiled(Path(work), below=below, tools=tools)
            prefix = below.removesuffix("python")
            moved = tuple(
                Entry(path=e.path.removeprefix(prefix), data=e.data, executable=e.executable)
                for e in found
            )
            about = Entry(path="version", data=f"{version}\n".encode())
            stream = pack((*moved, *files, about), time=0, existing=frozenset())
            await squash((stream,), output, tools=tools, time=0)

        plan = Plan(
            name=BUNDLE_NAME, key=_key(inputs), time=0, debs=(), wheels=(), make=make,
            os_release=None,
        )  # fmt: skip
        return await ensure(plan, cache / "image", private_key, report)


def _system(names: tuple[str, ...]) -> tuple[Entry, ...]:
    """Launchers, units, and files of os/: the same in every version."""
    units = programs.file_entries(os_folder() / "units", below="usr/lib/systemd/system")
    unit_names = tuple(Path(u.path).name for u in units)
    return (
        *units,
        *programs.system_entries((os_folder() / "units.txt").read_text(), units=unit_names),
        *programs.file_entries(os_folder() / "tree", below=""),
        *(
            Entry(
                path=f"usr/lib/constellation/bin/{name}",
                data=programs.launcher(name, python=(programs.NODE_PYTHON,)),
                executable=True,
            )
            for name in names
        ),
    )


def _os_release(version: str) -> bytes:
    """Give the node's os-release (os-release(5)): it is measured into PCR 11."""
    return (
        'NAME="Constellation node"\n'
        f'PRETTY_NAME="Constellation node {version} (Debian 13)"\n'
        "ID=constellation\n"
        "ID_LIKE=debian\n"
        'VERSION_ID="13"\n'
        f"IMAGE_ID={NODE_NAME}\n"
        f"IMAGE_VERSION={version}\n"
    ).encode()


def _identity(version: str, *, time: int, public_key: bytes, root: bytes) -> tuple[Entry, ...]:
    about = {
        "name": NODE_NAME,
        "version": version,
        "build_time": time,
        "release_public_key": public_key,
    }
    return (
        Entry(path="usr/lib/constellation/image.json", data=decode.dump(about)),
        Entry(path="usr/lib/constellation/release-root.json", data=root),
        Entry(path="usr/lib/os-release", data=_os_release(version)),
        Entry(path="etc/os-release", link="../usr/lib/os-release"),
    )


def _no_collision(entries: tuple[Entry, ...], base: BaseRoot) -> None:
    if both := sorted({e.path for e in entries} & base.names):
        raise FormatError(
            f"/{both[0]} comes from a package and from os/", hint="prune it in image.root_build"
        )


def _wheel_contents(found: tuple[Wheel, ...]) -> tuple[Content, ...]:
    return tuple(Content(name=w.name, version=w.version, sha256=w.sha256.hex()) for w in found)


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _key(inputs: tuple[bytes, ...]) -> str:
    digests = b"".join(hashlib.sha256(data).digest() for data in (_RECIPE, *inputs))
    return hashlib.sha256(digests).hexdigest()
