from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class InitRequest(_message.Message):
    __slots__ = ("start", "policy")
    START_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    start: Start
    policy: Policy
    def __init__(self, start: _Optional[_Union[Start, _Mapping]] = ..., policy: _Optional[_Union[Policy, _Mapping]] = ...) -> None: ...

class Start(_message.Message):
    __slots__ = ("owner_signature", "master_key", "master_salt", "plan", "time", "provider_access", "artifact_sources")
    OWNER_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    MASTER_KEY_FIELD_NUMBER: _ClassVar[int]
    MASTER_SALT_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_ACCESS_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_SOURCES_FIELD_NUMBER: _ClassVar[int]
    owner_signature: bytes
    master_key: bytes
    master_salt: bytes
    plan: ClusterPlan
    time: int
    provider_access: bytes
    artifact_sources: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, owner_signature: _Optional[bytes] = ..., master_key: _Optional[bytes] = ..., master_salt: _Optional[bytes] = ..., plan: _Optional[_Union[ClusterPlan, _Mapping]] = ..., time: _Optional[int] = ..., provider_access: _Optional[bytes] = ..., artifact_sources: _Optional[_Iterable[str]] = ...) -> None: ...

class ClusterPlan(_message.Message):
    __slots__ = ("name", "kubernetes_version", "artifact_list", "endpoint", "user_endpoint", "api_sans", "service_cidr", "pod_cidr", "mesh_cidr", "node_groups", "instance_id", "cloud_integration")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KUBERNETES_VERSION_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_LIST_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    USER_ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    API_SANS_FIELD_NUMBER: _ClassVar[int]
    SERVICE_CIDR_FIELD_NUMBER: _ClassVar[int]
    POD_CIDR_FIELD_NUMBER: _ClassVar[int]
    MESH_CIDR_FIELD_NUMBER: _ClassVar[int]
    NODE_GROUPS_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    CLOUD_INTEGRATION_FIELD_NUMBER: _ClassVar[int]
    name: str
    kubernetes_version: str
    artifact_list: bytes
    endpoint: str
    user_endpoint: str
    api_sans: _containers.RepeatedScalarFieldContainer[str]
    service_cidr: str
    pod_cidr: str
    mesh_cidr: str
    node_groups: _containers.RepeatedCompositeFieldContainer[NodeGroup]
    instance_id: str
    cloud_integration: bool
    def __init__(self, name: _Optional[str] = ..., kubernetes_version: _Optional[str] = ..., artifact_list: _Optional[bytes] = ..., endpoint: _Optional[str] = ..., user_endpoint: _Optional[str] = ..., api_sans: _Optional[_Iterable[str]] = ..., service_cidr: _Optional[str] = ..., pod_cidr: _Optional[str] = ..., mesh_cidr: _Optional[str] = ..., node_groups: _Optional[_Iterable[_Union[NodeGroup, _Mapping]]] = ..., instance_id: _Optional[str] = ..., cloud_integration: _Optional[bool] = ...) -> None: ...

class NodeGroup(_message.Message):
    __slots__ = ("name", "role", "size", "min", "max")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    name: str
    role: str
    size: int
    min: int
    max: int
    def __init__(self, name: _Optional[str] = ..., role: _Optional[str] = ..., size: _Optional[int] = ..., min: _Optional[int] = ..., max: _Optional[int] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("policy", "signature")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    policy: bytes
    signature: bytes
    def __init__(self, policy: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class InitEvent(_message.Message):
    __slots__ = ("started", "progress", "done", "policy_needed", "finished", "failed")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    POLICY_NEEDED_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    started: Step
    progress: Step
    done: Step
    policy_needed: PolicyNeeded
    finished: Finished
    failed: Failed
    def __init__(self, started: _Optional[_Union[Step, _Mapping]] = ..., progress: _Optional[_Union[Step, _Mapping]] = ..., done: _Optional[_Union[Step, _Mapping]] = ..., policy_needed: _Optional[_Union[PolicyNeeded, _Mapping]] = ..., finished: _Optional[_Union[Finished, _Mapping]] = ..., failed: _Optional[_Union[Failed, _Mapping]] = ...) -> None: ...

class Step(_message.Message):
    __slots__ = ("name", "detail", "done", "total")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    name: str
    detail: str
    done: int
    total: int
    def __init__(self, name: _Optional[str] = ..., detail: _Optional[str] = ..., done: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...

class PolicyNeeded(_message.Message):
    __slots__ = ("join_public_key",)
    JOIN_PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    join_public_key: bytes
    def __init__(self, join_public_key: _Optional[bytes] = ...) -> None: ...

class Finished(_message.Message):
    __slots__ = ("kubeconfig", "cluster_ca_certificate")
    KUBECONFIG_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_CA_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    kubeconfig: bytes
    cluster_ca_certificate: bytes
    def __init__(self, kubeconfig: _Optional[bytes] = ..., cluster_ca_certificate: _Optional[bytes] = ...) -> None: ...

class Failed(_message.Message):
    __slots__ = ("exit_code", "message", "hint", "journal")
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_FIELD_NUMBER: _ClassVar[int]
    exit_code: int
    message: str
    hint: str
    journal: bytes
    def __init__(self, exit_code: _Optional[int] = ..., message: _Optional[str] = ..., hint: _Optional[str] = ..., journal: _Optional[bytes] = ...) -> None: ...
