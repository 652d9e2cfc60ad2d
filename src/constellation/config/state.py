"""What the workstation knows about its cluster: constellation-state.yaml, written after each step.

The file belongs to the user's workstation, which is trusted (design, section 2), but what it says
about machines are a provider's claims. It holds no secret. It is versioned; a newer version is
refused. A run that was interrupted goes on from here: `init` names the chosen node before any
secret moves.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from constellation.attestation.node_rules import (
    PlatformDemands,  # noqa: TC001 - read by decode
)
from constellation.base import decode, files
from constellation.base.errors import FormatError, UserError
from constellation.config.not_yaml import NOT_YAML
from constellation.providers.protocols import InfrastructureState  # noqa: TC001 - read by decode
from constellation.trust.cluster_policy import (  # noqa: TC001 - read by decode
    AcceptedRelease,
    SignedPolicy,
)

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "STATE_VERSION",
    "ChosenNode",
    "Image",
    "State",
    "dump_state",
    "parse_state",
    "read_state",
    "write_state",
]

STATE_VERSION = 1

_MAX_BYTES = 4 * 1024 * 1024
_HEADER = "# Written by constellation after each step. No secrets; edit constellation-conf.yaml.\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The node image that this cluster's machines boot, and what its registers must hold."""

    path: str
    release: AcceptedRelease


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenNode:
    """The node that `init` gave the master secret to, or was about to: no other gets it.

    `attester_id` is the SHA-256 (32 bytes) of its attestation key.
    """

    instance_id: str
    attester_id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything that the workstation must remember; None and empty: not there yet.

    `uid` names the provider's resources; `cluster_id` has 32 bytes; `node_document` are the very
    bytes that nodes measure; `artifact_list` is canonical JSON, `services_bundle` a SHA-256;
    `platform` is what the owner demands of chips and clouds;
    `policy` was handed over last; until all control planes obey it, `policy_before` is the one
    before; no serial up to `signed_serial` is signed again; `cluster_ca` is PEM, of Kubernetes;
    `join_log_head` and `join_log_sequence` name the last record of the join log that was seen.
    """

    version: int
    name: str
    uid: str
    cluster_id: bytes
    node_document: bytes
    kubernetes_version: str
    artifact_list: bytes = b""
    services_bundle: bytes = b""
    image: Image | None = None
    platform: PlatformDemands | None = None
    infrastructure: InfrastructureState | None = None
    init: ChosenNode | None = None
    policy: SignedPolicy | None = None
    policy_serial: int = 0
    policy_before: SignedPolicy | None = None
    signed_serial: int = 0
    cluster_ca: bytes = b""
    join_log_head: bytes = b""
    join_log_sequence: int = 0
    etcd_revision: int = 0

    @property
    def artifact_list_digest(self) -> bytes:
        """Give the SHA-256 of the artifact list, as the cluster policy names it."""
        return hashlib.sha256(self.artifact_list).digest()


def dump_state(state: State) -> bytes:
    """Write the file's bytes (YAML; bytes as base64)."""
    text = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.width = 10_000
    yaml.dump(json.loads(decode.dump(state)), text)
    return (_HEADER + text.getvalue()).encode()


def parse_state(data: bytes, *, name: str) -> State:
    """Read the file's bytes.

    Raises:
        UserError: not a state file of this version.
    """
    if len(data) > _MAX_BYTES:
        raise UserError(f"expected at most {_MAX_BYTES} bytes, found more", where=name)
    try:
        value = YAML(typ="safe", pure=True).load(data.decode())
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark is not None else ""
        problem = str(error.problem or error.context).splitlines()[0]
        raise UserError(f"not YAML: {problem}", where=f"{name}{line}", hint=_HINT) from None
    except NOT_YAML as error:
        raise UserError(f"not YAML: {str(error)[:200]}", where=name, hint=_HINT) from None
    if not isinstance(value, dict) or "version" not in value:
        raise UserError("expected a state file, found a part of one", where=name, hint=_HINT)
    if value["version"] != STATE_VERSION:
        raise UserError(
            f"version: expected {STATE_VERSION}, found {value['version']!r}",
            where=name,
            hint="the file is of another program version: use that one",
        )
    try:
        return decode.load_value(State, value, what=name)
    except FormatError as error:
        raise UserError(str(error), hint=_HINT) from None


_HINT = (
    "the file is damaged: put a copy of it back, or remove the cluster with `constellation "
    "terminate` (`mini down`), which find it also without the file"
)


def read_state(path: Path) -> State | None:
    """Read the state file; None where there is none.

    Raises:
        UserError: it is there and cannot be used.
    """
    try:
        with path.open("rb") as file:
            return parse_state(file.read(_MAX_BYTES + 1), name=path.name)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from None


def write_state(path: Path, state: State) -> None:
    """Replace the state file; a crash leaves the old one or the new one."""
    files.write_atomic(path, dump_state(state), mode=0o600)
