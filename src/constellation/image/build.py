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

from constellation.image import programs
from constellation.image.layers import compiled, squash
from constellation.image.measure.local import predict
from constellation.image.node_layers import contents, node_layers, os_release
from constellation.image.release_key import ensure_development_key
from constellation.image.sources import os_folder, package_folder
from constellation.image.store import SQUASHFS, NodeImage, Plan, ServicesBundle, ensure
from constellation.image.tools import ensure_tools_root
from constellation.image.tree import Entry, pack

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.base.progress import Report

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
    layers = await node_layers(cache, report)
    system = layers.system((os_folder() / "units.txt").read_text())
    with tempfile.TemporaryDirectory(dir=cache / "image", prefix=".node-") as folder:
        work = Path(folder)
        await asyncio.to_thread(layers.copy_sources, work)

        async def make(output: Path, version: str) -> Mapping[int, tuple[bytes, ...]]:
            streams = await layers.streams(work, system, name=NODE_NAME, version=version)
            await squash(streams, output, tools=layers.tools, time=layers.time)
            digest = await asyncio.to_thread(_digest, output)
            return predict(digest, os_release(NODE_NAME, version))

        plan = Plan(
            name=NODE_NAME,
            file=SQUASHFS,
            key=_key(await asyncio.to_thread(layers.key_parts, work, system)),
            time=layers.time,
            debs=contents(layers.base.packages.debs),
            wheels=layers.wheel_contents,
            make=make,
        )
        return await ensure(plan, cache / "image", layers.private_key, report)


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

        async def make(output: Path, version: str) -> Mapping[int, tuple[bytes, ...]]:
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
            return {}

        plan = Plan(
            name=BUNDLE_NAME, file=SQUASHFS, key=_key(inputs), time=0, debs=(), wheels=(), make=make
        )  # fmt: skip
        return await ensure(plan, cache / "image", private_key, report)


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _key(inputs: tuple[bytes, ...]) -> str:
    digests = b"".join(hashlib.sha256(data).digest() for data in (_RECIPE, *inputs))
    return hashlib.sha256(digests).hexdigest()
