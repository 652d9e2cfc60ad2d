"""What one look of the operator found, as it was said; nothing is concluded here.

The membership is JoinService's verified copy of the join log, the policy is the signed one of this
node's disk: both can be relied on. The rest are claims of Kubernetes, provider and etcd.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.kube.cluster_release import Order, Report
    from constellation.kube.etcd import EtcdMember
    from constellation.kube.membership import Membership
    from constellation.kube.rollout import NodeGroup
    from constellation.providers.protocols import Instance
    from constellation.trust.cluster_policy import ClusterPolicy

__all__ = ["Components", "Facts", "KubeNode"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeNode:
    """A Node object; `leaving`: this operator marked it to be removed.

    `provider_id`: which machine it is, as the object says; empty: it does not.
    """

    name: str
    address: str
    ready: bool
    kubelet: str
    leaving: bool
    provider_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """Which Kubernetes versions the parts that belong to no node are of.

    `cloud_objects`: SHA-256 of the objects of the cloud's components; empty: none.
    """

    config_maps: str
    core_dns: str
    rbac: str
    cloud_objects: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One look.

    `api_servers`: versions by address, of those that answer; `refusals`: why JoinService refused an
    instance last, by its id; `snapshot`: whether this node's agent has one for the policy;
    `wanted_objects`: those of the cloud's components that the policy wants, None: the agent does
    not say.
    """

    me: str
    membership: Membership
    policy: ClusterPolicy
    instances: tuple[Instance, ...]
    nodes: tuple[KubeNode, ...]
    etcd: tuple[EtcdMember, ...]
    api_servers: Mapping[str, str]
    refusals: Mapping[str, str]
    components: Components
    snapshot: bool
    groups: tuple[NodeGroup, ...]
    orders: Mapping[str, Order]
    reports: Mapping[str, Report]
    wanted_objects: str | None = None
