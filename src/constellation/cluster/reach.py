"""How the workstation reaches a node: attested TLS, appraised by this cluster's own rules.

A fresh node must have PCR 15 zero. Only for an init that goes on with the node which the state file
names, evidence with this cluster's PCR 15 is accepted as well: that node has the secret already.
Source: design, section 6 ("The CLI to a node").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.atls import client
from constellation.attestation import node_rules
from constellation.base.errors import FormatError, Rejected, Unavailable
from constellation.trust.appraisal import first_node_policy, make_verifier, node_verifier
from constellation.trust.cluster_policy import verify_policy
from constellation.trust.node_document import parse_node_document

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from constellation.atls.client import Appraise, AtlsChannel
    from constellation.attestation.model import AttestationResult, Binding, Evidence
    from constellation.config.state import State

__all__ = [
    "appraise_for_init",
    "appraise_fresh",
    "appraise_rebooted",
    "connect",
    "is_given_to_cluster",
    "split_endpoint",
]

_LARGEST_PORT = 65535


def appraise_fresh(state: State, *, now: Callable[[], datetime]) -> Appraise:
    """Accept a node of this cluster whose PCR 15 is zero."""
    return lambda evidence, binding: _appraise(state, evidence, binding, joined=False, now=now())


def appraise_rebooted(
    state: State, *, owner_public_key: bytes, now: Callable[[], datetime]
) -> Appraise:
    """Accept a node of this cluster whose PCR 15 is zero, of any image that its policy accepts.

    In a roll-out that is the old one as well as the new one, which the state file names. Before
    there is a policy: the one that the machines were made with.

    Raises:
        Untrusted: the owner did not sign the policy in the state file.
    """
    if state.policy is None:
        return appraise_fresh(state, now=now)
    document = parse_node_document(state.node_document)
    policy = verify_policy(
        state.policy,
        owner_public_key=owner_public_key,
        cluster_id=state.cluster_id,
        minimum_serial=state.policy_serial,
    )

    def appraise(evidence: Evidence, binding: Binding) -> AttestationResult:
        if evidence.variant is not document.variant:
            raise Rejected((f"variant: found {evidence.variant}, expected {document.variant}",))
        verifier = node_verifier(policy, document, joined=False, now=now())
        return verifier.appraise(evidence, binding=binding, now=now())

    return appraise


def appraise_for_init(state: State, *, now: Callable[[], datetime]) -> Appraise:
    """Accept a fresh node, or the very node that an earlier init chose."""

    def appraise(evidence: Evidence, binding: Binding) -> AttestationResult:
        try:
            return _appraise(state, evidence, binding, joined=False, now=now())
        except Rejected as refused:
            if state.init is None:
                raise
            try:
                result = _appraise(state, evidence, binding, joined=True, now=now())
            except Rejected:
                raise refused from None
            if result.attester_id != state.init.attester_id:
                raise refused from None
            return result

    return appraise


def is_given_to_cluster(state: State, result: AttestationResult) -> bool:
    """Say whether the node had been given to its cluster (PCR 15 extended) when it attested."""
    return node_rules.is_given_to_cluster(result, document=state.node_document)


async def connect(
    endpoint: str,
    *,
    service: str,
    appraise: Appraise,
    deadline_s: float,
) -> AtlsChannel:
    """Open an attested channel for `service` ("init", "recover"); the workstation does not attest.

    Raises:
        Unavailable: nobody answered in time.
        Untrusted: the node's evidence is not authentic.
        Rejected: it is, but the node is not acceptable.
    """
    host, port = split_endpoint(endpoint)
    return await client.connect(
        host,
        port,
        purpose=f"{service}-client",
        server_purpose=f"{service}-server",
        attester=None,
        appraise=appraise,
        deadline_s=deadline_s,
    )


def split_endpoint(endpoint: str) -> tuple[str, int]:
    """Take `host:port` apart (IPv4 or a name).

    Raises:
        FormatError: it is something else.
    """
    host, colon, port = endpoint.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit():
        raise FormatError(f"endpoint {endpoint[:80]!r}: want host:port")
    if not 0 < int(port) <= _LARGEST_PORT:
        raise FormatError(f"endpoint {endpoint[:80]!r}: port out of range")
    return host, int(port)


def _appraise(
    state: State, evidence: Evidence, binding: Binding, *, joined: bool, now: datetime
) -> AttestationResult:
    if state.image is None or state.infrastructure is None:
        raise Unavailable("no machines yet", hint="run `constellation create`")
    document = parse_node_document(state.node_document)
    verifier = make_verifier(
        document,
        rules=first_node_policy(
            (state.image.release,), document, demands=state.platform, joined=joined, now=now
        ),
        trust_roots=state.infrastructure.trust_roots,
        demands=state.platform,
    )
    if evidence.variant is not document.variant:
        raise Rejected((f"variant: found {evidence.variant}, expected {document.variant}",))
    return verifier.appraise(evidence, binding=binding, now=now)
