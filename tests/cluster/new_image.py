"""A node image with other bytes and the same content, as a roll-out's target, for tests as root.

The signed policy is put onto each control plane's disk as its JoinService keeps it: how it comes
there, and what may stand in it, is for other tests.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.cluster.secrets import read_secrets
from constellation.config.state import State, read_state
from constellation.config.workspace import Workspace as Files
from constellation.config.workspace import cache_folder
from constellation.image.measure.local import predict
from constellation.providers.local.infrastructure import LocalInfrastructure
from constellation.providers.protocols import Desired, Group, Role
from constellation.trust.cluster_policy import dump_signed_policy, parse_policy, sign_policy

if TYPE_CHECKING:
    from tests.cluster.conftest import Workspace

__all__ = ["give_image", "node_roots"]

_DAY_S = 24 * 3600
_DISK_BYTES = 8 * 1024**3


def node_roots(workspace: Workspace, role: Role) -> tuple[Path, ...]:
    """Give the file systems of all running nodes of a role, as seen from the machine."""
    machines = asyncio.run(LocalInfrastructure(workspace.uid).nodes())
    return tuple(Path(f"/proc/{m.pid}/root") for m in machines if m.role == role and m.pid)


def give_image(workspace: Workspace) -> bytes:
    """Name a new image to the provider and in the next policy; gives its digest."""
    state = read_state(Files(folder=workspace.folder).state)
    assert state is not None
    assert state.image is not None
    new = workspace.folder / "node-image.squashfs"
    data = Path(state.image.path).read_bytes() + bytes(4096)
    new.write_bytes(data)
    digest = hashlib.sha256(data).digest()
    _name_to_provider(workspace, state, new)
    _put_policy(workspace, state, digest)
    return digest


def _name_to_provider(workspace: Workspace, state: State, image: Path) -> None:
    assert state.infrastructure is not None
    instances = state.infrastructure.instances
    groups = {(i.group, i.role) for i in instances}
    desired = Desired(
        groups=tuple(
            Group(name=name, role=role, size=sum(i.group == name for i in instances))
            for name, role in sorted(groups)
        ),
        image_path=str(image),
        node_document=state.node_document,
        artifacts_path=str(cache_folder()),
        state_disk_bytes=_DISK_BYTES,
    )
    asyncio.run(LocalInfrastructure(workspace.uid).apply(desired, report=lambda _: None))


def _put_policy(workspace: Workspace, state: State, digest: bytes) -> None:
    assert state.policy is not None
    assert state.infrastructure is not None
    roots = node_roots(workspace, Role.CONTROL_PLANE)
    values = predict(digest, (roots[0] / "usr/lib/os-release").read_bytes())
    policy = parse_policy(state.policy.policy)
    (old,) = policy.releases
    new = dataclasses.replace(old, name="new", image_digest=digest, reference=values)
    ending = dataclasses.replace(old, not_after=int(time.time()) + _DAY_S)
    following = dataclasses.replace(
        policy,
        serial=policy.serial + 1,
        releases=(new, ending),
        slots={i.group: 6 for i in state.infrastructure.instances},
    )
    owner = read_secrets(Files(folder=workspace.folder), cluster_id=state.cluster_id)
    signed = dump_signed_policy(sign_policy(following, owner.owner_key))
    for root in roots:
        (root / "var/lib/constellation/policy/policy.json").write_bytes(signed)
