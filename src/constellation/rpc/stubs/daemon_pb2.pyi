from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ObserveRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Cloud(_message.Message):
    __slots__ = ("id", "address", "ca_certificate", "nodes", "inner_endpoint")
    ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    CA_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    INNER_ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    id: str
    address: str
    ca_certificate: bytes
    nodes: _containers.RepeatedCompositeFieldContainer[Node]
    inner_endpoint: str
    def __init__(self, id: _Optional[str] = ..., address: _Optional[str] = ..., ca_certificate: _Optional[bytes] = ..., nodes: _Optional[_Iterable[_Union[Node, _Mapping]]] = ..., inner_endpoint: _Optional[str] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("instance_id", "group", "role", "address", "state", "init_port", "recovery_port", "verify_port", "pid", "image", "policy_port")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    INIT_PORT_FIELD_NUMBER: _ClassVar[int]
    RECOVERY_PORT_FIELD_NUMBER: _ClassVar[int]
    VERIFY_PORT_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    POLICY_PORT_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    group: str
    role: str
    address: str
    state: str
    init_port: int
    recovery_port: int
    verify_port: int
    pid: int
    image: str
    policy_port: int
    def __init__(self, instance_id: _Optional[str] = ..., group: _Optional[str] = ..., role: _Optional[str] = ..., address: _Optional[str] = ..., state: _Optional[str] = ..., init_port: _Optional[int] = ..., recovery_port: _Optional[int] = ..., verify_port: _Optional[int] = ..., pid: _Optional[int] = ..., image: _Optional[str] = ..., policy_port: _Optional[int] = ...) -> None: ...

class ApplyRequest(_message.Message):
    __slots__ = ("groups", "image_path", "node_document", "artifacts_path", "disk_bytes", "offline", "api_ca")
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_PATH_FIELD_NUMBER: _ClassVar[int]
    NODE_DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    ARTIFACTS_PATH_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    OFFLINE_FIELD_NUMBER: _ClassVar[int]
    API_CA_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[Group]
    image_path: str
    node_document: bytes
    artifacts_path: str
    disk_bytes: int
    offline: bool
    api_ca: bytes
    def __init__(self, groups: _Optional[_Iterable[_Union[Group, _Mapping]]] = ..., image_path: _Optional[str] = ..., node_document: _Optional[bytes] = ..., artifacts_path: _Optional[str] = ..., disk_bytes: _Optional[int] = ..., offline: _Optional[bool] = ..., api_ca: _Optional[bytes] = ...) -> None: ...

class Group(_message.Message):
    __slots__ = ("name", "role", "size")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    name: str
    role: str
    size: int
    def __init__(self, name: _Optional[str] = ..., role: _Optional[str] = ..., size: _Optional[int] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("step", "detail", "done")
    STEP_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    step: str
    detail: str
    done: bool
    def __init__(self, step: _Optional[str] = ..., detail: _Optional[str] = ..., done: _Optional[bool] = ...) -> None: ...

class PowerRequest(_message.Message):
    __slots__ = ("instance_id", "action", "image_path")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    IMAGE_PATH_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    action: str
    image_path: str
    def __init__(self, instance_id: _Optional[str] = ..., action: _Optional[str] = ..., image_path: _Optional[str] = ...) -> None: ...

class PowerReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("instance_id",)
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    def __init__(self, instance_id: _Optional[str] = ...) -> None: ...

class DeleteReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ConsoleRequest(_message.Message):
    __slots__ = ("instance_id",)
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    def __init__(self, instance_id: _Optional[str] = ...) -> None: ...

class ConsoleReply(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: bytes
    def __init__(self, text: _Optional[bytes] = ...) -> None: ...

class LoadImageRequest(_message.Message):
    __slots__ = ("blob", "chunk", "name")
    BLOB_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    blob: Blob
    chunk: bytes
    name: ImageName
    def __init__(self, blob: _Optional[_Union[Blob, _Mapping]] = ..., chunk: _Optional[bytes] = ..., name: _Optional[_Union[ImageName, _Mapping]] = ...) -> None: ...

class Blob(_message.Message):
    __slots__ = ("sha256", "size")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    size: int
    def __init__(self, sha256: _Optional[str] = ..., size: _Optional[int] = ...) -> None: ...

class ImageName(_message.Message):
    __slots__ = ("registry", "repository", "tag", "sha256")
    REGISTRY_FIELD_NUMBER: _ClassVar[int]
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    registry: str
    repository: str
    tag: str
    sha256: str
    def __init__(self, registry: _Optional[str] = ..., repository: _Optional[str] = ..., tag: _Optional[str] = ..., sha256: _Optional[str] = ...) -> None: ...

class LoadImageReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DestroyRequest(_message.Message):
    __slots__ = ("keep_disks",)
    KEEP_DISKS_FIELD_NUMBER: _ClassVar[int]
    keep_disks: bool
    def __init__(self, keep_disks: _Optional[bool] = ...) -> None: ...
