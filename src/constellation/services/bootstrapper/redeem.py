"""A joining control plane gets master secret and join key: its grant for KeyService's answer.

The KeyService of the control plane that gave the ticket is asked, at its own address. It attests,
and what it gives proves itself: the master secret gives this cluster's clusterID, the join key is
the one that the signed policy names. This node's PCR 15 was extended before. Source: ADR 45.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.atls import client
from constellation.base import clock
from constellation.base.errors import Rejected
from constellation.base.secret import Secret
from constellation.crypto.signing import load_private_key, spki
from constellation.providers.select import check_access
from constellation.rpc.errors import raise_ours
from constellation.rpc.stubs.key_grpc import GrantServiceStub
from constellation.rpc.stubs.key_pb2 import RedeemRequest
from constellation.trust.appraisal import node_verifier
from constellation.trust.disk_key import own_master_secret

if TYPE_CHECKING:
    from constellation.atls.client import ChannelAttester
    from constellation.attestation.model import AttestationResult, Binding, Evidence
    from constellation.crypto.derive import MasterSecret
    from constellation.kube.join_log import SignedRecord
    from constellation.trust.cluster_policy import ClusterPolicy
    from constellation.trust.node_document import NodeDocument

__all__ = ["GRANT_PORT", "ControlPlaneSecrets", "redeem"]

GRANT_PORT = 9092
_DEADLINE_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlaneSecrets:
    """What every control plane has and no ticket carries; `join_key` is PEM.

    `access`: for the provider's API, None where machines have identities.
    """

    master: MasterSecret
    join_key: Secret
    access: Secret | None = None


async def redeem(
    grant: SignedRecord,
    *,
    address: str,
    port: int,
    attester: ChannelAttester,
    document: NodeDocument,
    policy: ClusterPolicy,
    provider: str,
) -> ControlPlaneSecrets:
    """Ask the KeyService at `address` once.

    Args:
        grant: as the ticket has it.
        address: of the control plane that gave the ticket.
        port: `GRANT_PORT`; another one in tests.
        attester: this node's agent.
        document: this node's own, measured.
        policy: verified, as the JoinService showed it.
        provider: by the measured command line.

    Raises:
        Rejected: the grant is void, or what came is not this cluster's.
        Untrusted: its evidence is not authentic.
        Unavailable: it does not answer.
    """

    def appraise(evidence: Evidence, binding: Binding) -> AttestationResult:
        now = clock.now_for_windows()
        verifier = node_verifier(policy, document, joined=True, now=now)
        return verifier.appraise(evidence, binding=binding, now=now)

    who = f"KeyService {address}"
    with raise_ours(who):
        channel = await client.connect(
            address,
            port,
            purpose="grant-client",
            server_purpose="grant-server",
            attester=attester,
            appraise=appraise,
            deadline_s=_DEADLINE_S,
        )
    try:
        with raise_ours(who):
            reply = await GrantServiceStub(channel.grpc).Redeem(
                RedeemRequest(record=grant.data, signature=grant.signature), timeout=_DEADLINE_S
            )
    finally:
        channel.close()
    master = own_master_secret(reply.master_key, reply.master_salt, document=document)
    join_key = Secret(reply.join_private_key)
    if spki(load_private_key(join_key).public_key()) != policy.join_public_key:
        raise Rejected((f"{who}: gave another join key than the cluster policy names",))
    access = Secret(reply.provider_access) if reply.provider_access else None
    if access is not None:
        check_access(provider, access)
    return ControlPlaneSecrets(master=master, join_key=join_key, access=access)
