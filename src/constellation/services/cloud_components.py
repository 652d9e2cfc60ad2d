"""How a cluster gets the objects of a cloud's components, and loses those of the release before.

`init` and the upgrade agent do it alike, as root on a control plane:

1. the file's digest is that of the signed list, and its objects may run      `cloud_objects`
2. no name of it is somebody else's in this cluster                          `cloud_ownership`
3. the API server would take all of it (a dry run)               until here nothing was changed
4. what cannot be changed in place is deleted, all is applied, what is in no list any more goes
5. the digest is noted, last: who is interrupted before begins again

What is ours says a label; whoever may write it in kube-system could delete these objects as well.
Sources: ADR 92, ADR 118, ADR 119.
"""

from __future__ import annotations

import asyncio
from itertools import groupby
from typing import TYPE_CHECKING

from constellation.base.retry import until_available
from constellation.kube import cloud_objects, cloud_ownership
from constellation.kube.cloud_ownership import DIGEST_ANNOTATION, LABEL
from constellation.services import artifacts, node_tools

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from constellation.kube.cloud_ownership import Reference
    from constellation.services.artifact_shelf import Shelf
    from constellation.trust.artifact_list import Artifact

__all__ = ["apply_components"]

_SPACE = "kube-system"
_CONFIG = "kubeadm-config"
_ANSWERS_S, _REFUSES_S = 60.0, 15.0
_APPLY = ("apply", "--server-side", "--field-manager=constellation", "--force-conflicts")


async def apply_components(
    artifact: Artifact | None, *, provider: str, shelf: Shelf, kubeconfig: Path
) -> None:
    """Bring the cluster to these components; None: to none. Once more: nothing changes.

    Raises:
        Rejected: the file is another one, has what may not be, or would take over what is somebody
            else's; nothing was changed.
        FormatError: it is no list of objects.
        FalseArtifact, Unavailable: as `Shelf.have` does; the API server does not answer, or does
            not take the objects.
    """
    data = b"" if artifact is None else await _checked(artifact, shelf)
    wanted = cloud_ownership.labelled(data, provider=provider)
    api = _Api(kubeconfig)
    todo = cloud_ownership.change(
        wanted,
        provider=provider,
        same_names=await api.same_names(data),
        ours=await api.ours(provider),
    )
    if todo.kept:
        await api.would_take(todo.kept)
    await api.delete(todo.remade)
    if todo.apply:
        await node_tools.apply_objects(todo.apply, kubeconfig=kubeconfig)
    await api.delete(todo.gone)
    await api.note(artifact.sha256 if artifact is not None else "")


async def _checked(artifact: Artifact, shelf: Shelf) -> bytes:
    """Give the very bytes that were hashed and checked."""
    await shelf.have((artifact,))
    data = await asyncio.to_thread(
        artifacts.read_checked,
        artifact,
        store=shelf.store,
        max_bytes=cloud_objects.MAX_BYTES,
    )
    cloud_objects.check_objects(data)
    return data


class _Api:
    """kubectl with the administrator's kubeconfig of this control plane."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig

    async def same_names(self, data: bytes) -> tuple[dict[str, object], ...]:
        """Give what the cluster has under the names of a list."""
        if not data:
            return ()
        return await self._get("-f", "-", "--ignore-not-found", stdin=data)

    async def ours(self, provider: str) -> tuple[dict[str, object], ...]:
        """Give what the cluster has with the label."""
        selector = f"{LABEL}={provider}"
        return await self._get(cloud_ownership.resources(), "-n", _SPACE, "-l", selector)

    async def delete(self, which: Iterable[Reference]) -> None:
        """Delete objects and wait until they are gone; what is gone already is fine."""
        for (resource, space), found in groupby(which, key=lambda r: (r.resource, r.namespace)):
            place = ("-n", space) if space else ()
            names = (reference.name for reference in found)
            await self._ask("delete", resource, *place, "--ignore-not-found", "--", *names)

    async def note(self, digest: str) -> None:
        """Write which list was applied to its end; "" for none."""
        word = f"{DIGEST_ANNOTATION}={digest}" if digest else f"{DIGEST_ANNOTATION}-"
        await self._ask("-n", _SPACE, "annotate", "configmap", _CONFIG, "--overwrite", word)

    async def would_take(self, objects: bytes) -> None:
        """Ask whether the API server would take them all; nothing is changed."""
        words = (*_APPLY, "--dry-run=server", "-f", "-")
        await self._until(_REFUSES_S, *words, stdin=objects)

    async def _ask(self, *words: str, stdin: bytes = b"") -> bytes:
        return await self._until(_ANSWERS_S, *words, stdin=stdin)

    async def _until(self, deadline_s: float, *words: str, stdin: bytes) -> bytes:
        """Run kubectl until it ends well. Raises Unavailable after that time."""
        return await until_available(
            lambda: node_tools.kubectl(*words, kubeconfig=self._kubeconfig, stdin=stdin),
            deadline_s=deadline_s,
        )

    async def _get(self, *words: str, stdin: bytes = b"") -> tuple[dict[str, object], ...]:
        return cloud_ownership.parse_found(
            await self._ask("get", *words, "-o", "json", stdin=stdin)
        )
