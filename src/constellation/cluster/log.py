"""Who joined when and who was refused why: the join log, verified, and never older than seen.

The API's copy is checked like anybody's: signatures by the join key of the signed policy, the hash
chain from its beginning, and that the last record seen from here is still part of it. Source:
design, section 10 ("Join log").
"""

from __future__ import annotations

import base64
import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightkube.core.exceptions import ApiError
from lightkube.generic_resource import create_global_resource

from constellation.base.errors import Conflict, FormatError, Rejected, Unavailable
from constellation.cluster.apply import require_state
from constellation.cluster.secrets import read_secrets
from constellation.config.state import write_state
from constellation.kube import client as kubernetes
from constellation.kube.join_log import Kind, SignedRecord, load_record, replay
from constellation.kube.join_records import GROUP, VERSION
from constellation.trust.cluster_policy import verify_policy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from constellation.cluster.context import Context
    from constellation.config.state import State
    from constellation.kube.join_log import Record

__all__ = ["JoinLog", "check_successor", "from_checkpoint", "parse_spec", "read_log"]

_JoinRecord = create_global_resource(GROUP, VERSION, "JoinRecord", "joinrecords")


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinLog:
    """The verified records in their order, and the digest of the last (32 bytes)."""

    records: tuple[Record, ...]
    head: bytes


async def read_log(context: Context, *, accept_rollback: bool) -> JoinLog:
    """Fetch and verify the join log; note its head in the state file.

    Raises:
        Conflict: the cluster was not initialised.
        Unavailable: the API does not answer.
        Untrusted: a signature or the chain does not hold.
        Rejected: the log is older than, or forked from, what was seen before.
    """
    state = require_state(context)
    if state.policy is None or not context.workspace.kubeconfig.exists():
        raise Conflict("the cluster was not initialised", hint="run `constellation init`")
    owner = read_secrets(context.workspace, cluster_id=state.cluster_id)
    policy = verify_policy(
        state.policy,
        owner_public_key=owner.owner_public_key,
        cluster_id=state.cluster_id,
        minimum_serial=state.policy_serial,
    )
    signed = from_checkpoint(await _fetch(context))
    membership = replay(signed, join_public_key=policy.join_public_key, cluster_id=state.cluster_id)
    if not accept_rollback:
        check_successor(state, signed)
    write_state(
        context.workspace.state,
        dataclasses.replace(
            state, join_log_head=membership.head, join_log_sequence=membership.sequence
        ),
    )
    return JoinLog(records=tuple(load_record(s) for s in signed), head=membership.head)


def check_successor(state: State, signed: tuple[SignedRecord, ...]) -> None:
    """Demand that the last record seen before is part of this log.

    Raises:
        Rejected: it is not.
    """
    if not state.join_log_head:
        return
    first = load_record(signed[0])
    seen = {s.digest for s in signed} | {first.previous}
    if state.join_log_head in seen or first.sequence > state.join_log_sequence + 1:
        return
    seen_before = f"record {state.join_log_sequence} with digest {state.join_log_head.hex()}"
    raise Rejected(
        (f"join log: {seen_before}, seen before, is not part of it",),
        hint="the cluster was set back or replaced; `--accept-rollback` if you did that yourself",
    )


def from_checkpoint(signed: tuple[SignedRecord, ...]) -> tuple[SignedRecord, ...]:
    """Leave out what a checkpoint made superfluous and is not removed yet, or not any more whole.

    All records in their order; gives them as they are where they begin as a log does, or where no
    checkpoint is (`replay` says what is missing). Nothing is believed for it: whoever may remove
    records could remove these, too.
    """
    kinds = [load_record(s).entry.kind for s in signed]
    if not kinds or kinds[0] is Kind.FOUNDED or Kind.CHECKPOINT not in kinds:
        return signed
    return signed[kinds.index(Kind.CHECKPOINT) :]


async def _fetch(context: Context) -> tuple[SignedRecord, ...]:
    client = kubernetes.connect(context.workspace.kubeconfig)
    with kubernetes.raise_ours():
        try:
            found = [item async for item in client.list(_JoinRecord)]
        except ApiError as error:
            raise Unavailable(f"no join log in the API: {error.status.message}") from error
    records = [parse_spec(item.get("spec") or {}) for item in found]
    return tuple(sorted(records, key=lambda r: load_record(r).sequence))


def parse_spec(spec: Mapping[str, Any]) -> SignedRecord:
    """Read record and signature of one object in the API.

    Raises:
        FormatError: they are not there.
    """
    record, signature = spec.get("record"), spec.get("signature")
    if not isinstance(record, str) or not isinstance(signature, str):
        raise FormatError("join record in the API: record or signature is missing")
    try:
        return SignedRecord(
            data=record.encode(), signature=base64.b64decode(signature, validate=True)
        )
    except ValueError:  # text that has no UTF-8, or is not even ASCII where base64 should be
        raise FormatError(
            "join record in the API: record is no text or signature not base64"
        ) from None
