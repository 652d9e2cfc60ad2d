from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PolicyStand(_message.Message):
    __slots__ = ("serial", "digest", "policy", "policy_signature", "release_chain", "acceptance", "acceptance_signature", "access_digest")
    SERIAL_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    POLICY_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    RELEASE_CHAIN_FIELD_NUMBER: _ClassVar[int]
    ACCEPTANCE_FIELD_NUMBER: _ClassVar[int]
    ACCEPTANCE_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    ACCESS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    serial: int
    digest: bytes
    policy: bytes
    policy_signature: bytes
    release_chain: bytes
    acceptance: bytes
    acceptance_signature: bytes
    access_digest: bytes
    def __init__(self, serial: _Optional[int] = ..., digest: _Optional[bytes] = ..., policy: _Optional[bytes] = ..., policy_signature: _Optional[bytes] = ..., release_chain: _Optional[bytes] = ..., acceptance: _Optional[bytes] = ..., acceptance_signature: _Optional[bytes] = ..., access_digest: _Optional[bytes] = ...) -> None: ...

class IntroduceRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Introduction(_message.Message):
    __slots__ = ("policy", "policy_signature", "channel_signature")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    POLICY_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    policy: bytes
    policy_signature: bytes
    channel_signature: bytes
    def __init__(self, policy: _Optional[bytes] = ..., policy_signature: _Optional[bytes] = ..., channel_signature: _Optional[bytes] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("instance_id", "role", "address", "disk_uuid", "kubelet_client_public_key", "kubelet_serving_public_key", "service_public_key", "mesh_public_key", "time")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DISK_UUID_FIELD_NUMBER: _ClassVar[int]
    KUBELET_CLIENT_PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    KUBELET_SERVING_PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    SERVICE_PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    MESH_PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    role: str
    address: str
    disk_uuid: bytes
    kubelet_client_public_key: bytes
    kubelet_serving_public_key: bytes
    service_public_key: bytes
    mesh_public_key: bytes
    time: int
    def __init__(self, instance_id: _Optional[str] = ..., role: _Optional[str] = ..., address: _Optional[str] = ..., disk_uuid: _Optional[bytes] = ..., kubelet_client_public_key: _Optional[bytes] = ..., kubelet_serving_public_key: _Optional[bytes] = ..., service_public_key: _Optional[bytes] = ..., mesh_public_key: _Optional[bytes] = ..., time: _Optional[int] = ...) -> None: ...

class JoinTicket(_message.Message):
    __slots__ = ("node_name", "group", "disk_key", "kubelet_client_certificate", "kubelet_serving_certificate", "service_certificate", "cluster_ca_certificate", "services_ca_certificate", "pod_cidr", "mesh_address", "peers", "artifact_list", "endpoint", "kubernetes_version", "service_cidr", "pod_network", "time", "control_plane", "mesh_cidr")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    DISK_KEY_FIELD_NUMBER: _ClassVar[int]
    KUBELET_CLIENT_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    KUBELET_SERVING_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_CA_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    SERVICES_CA_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    POD_CIDR_FIELD_NUMBER: _ClassVar[int]
    MESH_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_LIST_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    KUBERNETES_VERSION_FIELD_NUMBER: _ClassVar[int]
    SERVICE_CIDR_FIELD_NUMBER: _ClassVar[int]
    POD_NETWORK_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    CONTROL_PLANE_FIELD_NUMBER: _ClassVar[int]
    MESH_CIDR_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    group: str
    disk_key: bytes
    kubelet_client_certificate: bytes
    kubelet_serving_certificate: bytes
    service_certificate: bytes
    cluster_ca_certificate: bytes
    services_ca_certificate: bytes
    pod_cidr: str
    mesh_address: str
    peers: PeerList
    artifact_list: bytes
    endpoint: str
    kubernetes_version: str
    service_cidr: str
    pod_network: str
    time: int
    control_plane: ControlPlaneTicket
    mesh_cidr: str
    def __init__(self, node_name: _Optional[str] = ..., group: _Optional[str] = ..., disk_key: _Optional[bytes] = ..., kubelet_client_certificate: _Optional[bytes] = ..., kubelet_serving_certificate: _Optional[bytes] = ..., service_certificate: _Optional[bytes] = ..., cluster_ca_certificate: _Optional[bytes] = ..., services_ca_certificate: _Optional[bytes] = ..., pod_cidr: _Optional[str] = ..., mesh_address: _Optional[str] = ..., peers: _Optional[_Union[PeerList, _Mapping]] = ..., artifact_list: _Optional[bytes] = ..., endpoint: _Optional[str] = ..., kubernetes_version: _Optional[str] = ..., service_cidr: _Optional[str] = ..., pod_network: _Optional[str] = ..., time: _Optional[int] = ..., control_plane: _Optional[_Union[ControlPlaneTicket, _Mapping]] = ..., mesh_cidr: _Optional[str] = ...) -> None: ...

class ControlPlaneTicket(_message.Message):
    __slots__ = ("pki", "services_ca_key", "api_sans", "policy", "policy_signature", "user_endpoint", "mesh_cidr", "membership", "grant", "grant_signature", "release_chain", "acceptance", "acceptance_signature")
    class PkiEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    PKI_FIELD_NUMBER: _ClassVar[int]
    SERVICES_CA_KEY_FIELD_NUMBER: _ClassVar[int]
    API_SANS_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    POLICY_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    USER_ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    MESH_CIDR_FIELD_NUMBER: _ClassVar[int]
    MEMBERSHIP_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    GRANT_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    RELEASE_CHAIN_FIELD_NUMBER: _ClassVar[int]
    ACCEPTANCE_FIELD_NUMBER: _ClassVar[int]
    ACCEPTANCE_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    pki: _containers.ScalarMap[str, bytes]
    services_ca_key: bytes
    api_sans: _containers.RepeatedScalarFieldContainer[str]
    policy: bytes
    policy_signature: bytes
    user_endpoint: str
    mesh_cidr: str
    membership: bytes
    grant: bytes
    grant_signature: bytes
    release_chain: bytes
    acceptance: bytes
    acceptance_signature: bytes
    def __init__(self, pki: _Optional[_Mapping[str, bytes]] = ..., services_ca_key: _Optional[bytes] = ..., api_sans: _Optional[_Iterable[str]] = ..., policy: _Optional[bytes] = ..., policy_signature: _Optional[bytes] = ..., user_endpoint: _Optional[str] = ..., mesh_cidr: _Optional[str] = ..., membership: _Optional[bytes] = ..., grant: _Optional[bytes] = ..., grant_signature: _Optional[bytes] = ..., release_chain: _Optional[bytes] = ..., acceptance: _Optional[bytes] = ..., acceptance_signature: _Optional[bytes] = ...) -> None: ...

class RejoinRequest(_message.Message):
    __slots__ = ("instance_id", "disk_uuid", "address", "time")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    DISK_UUID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    disk_uuid: bytes
    address: str
    time: int
    def __init__(self, instance_id: _Optional[str] = ..., disk_uuid: _Optional[bytes] = ..., address: _Optional[str] = ..., time: _Optional[int] = ...) -> None: ...

class RejoinTicket(_message.Message):
    __slots__ = ("disk_key", "peers", "time")
    DISK_KEY_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    disk_key: bytes
    peers: PeerList
    time: int
    def __init__(self, disk_key: _Optional[bytes] = ..., peers: _Optional[_Union[PeerList, _Mapping]] = ..., time: _Optional[int] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("node_name", "role", "instance_id", "address", "kubelet_client", "time")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    KUBELET_CLIENT_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    role: str
    instance_id: str
    address: str
    kubelet_client: bool
    time: int
    def __init__(self, node_name: _Optional[str] = ..., role: _Optional[str] = ..., instance_id: _Optional[str] = ..., address: _Optional[str] = ..., kubelet_client: _Optional[bool] = ..., time: _Optional[int] = ...) -> None: ...

class RenewTicket(_message.Message):
    __slots__ = ("service_certificate", "kubelet_serving_certificate", "kubelet_client_certificate", "time")
    SERVICE_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    KUBELET_SERVING_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    KUBELET_CLIENT_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    service_certificate: bytes
    kubelet_serving_certificate: bytes
    kubelet_client_certificate: bytes
    time: int
    def __init__(self, service_certificate: _Optional[bytes] = ..., kubelet_serving_certificate: _Optional[bytes] = ..., kubelet_client_certificate: _Optional[bytes] = ..., time: _Optional[int] = ...) -> None: ...

class SettledRequest(_message.Message):
    __slots__ = ("node_name",)
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    def __init__(self, node_name: _Optional[str] = ...) -> None: ...

class SettledReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PeersRequest(_message.Message):
    __slots__ = ("known_serial",)
    KNOWN_SERIAL_FIELD_NUMBER: _ClassVar[int]
    known_serial: int
    def __init__(self, known_serial: _Optional[int] = ...) -> None: ...

class PeerList(_message.Message):
    __slots__ = ("serial", "peers", "signature")
    SERIAL_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    serial: int
    peers: _containers.RepeatedCompositeFieldContainer[Peer]
    signature: bytes
    def __init__(self, serial: _Optional[int] = ..., peers: _Optional[_Iterable[_Union[Peer, _Mapping]]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Peer(_message.Message):
    __slots__ = ("node_name", "address", "mesh_public_key", "mesh_address", "pod_cidr", "role")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MESH_PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    MESH_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    POD_CIDR_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    address: str
    mesh_public_key: bytes
    mesh_address: str
    pod_cidr: str
    role: str
    def __init__(self, node_name: _Optional[str] = ..., address: _Optional[str] = ..., mesh_public_key: _Optional[bytes] = ..., mesh_address: _Optional[str] = ..., pod_cidr: _Optional[str] = ..., role: _Optional[str] = ...) -> None: ...
