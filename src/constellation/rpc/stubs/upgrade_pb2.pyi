from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Target(_message.Message):
    __slots__ = ("policy_serial", "kubernetes_version")
    POLICY_SERIAL_FIELD_NUMBER: _ClassVar[int]
    KUBERNETES_VERSION_FIELD_NUMBER: _ClassVar[int]
    policy_serial: int
    kubernetes_version: str
    def __init__(self, policy_serial: _Optional[int] = ..., kubernetes_version: _Optional[str] = ...) -> None: ...

class Description(_message.Message):
    __slots__ = ("policy_serial", "kubernetes_version", "api_server", "snapshot", "cloud_objects")
    POLICY_SERIAL_FIELD_NUMBER: _ClassVar[int]
    KUBERNETES_VERSION_FIELD_NUMBER: _ClassVar[int]
    API_SERVER_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    CLOUD_OBJECTS_FIELD_NUMBER: _ClassVar[int]
    policy_serial: int
    kubernetes_version: str
    api_server: str
    snapshot: bool
    cloud_objects: str
    def __init__(self, policy_serial: _Optional[int] = ..., kubernetes_version: _Optional[str] = ..., api_server: _Optional[str] = ..., snapshot: _Optional[bool] = ..., cloud_objects: _Optional[str] = ...) -> None: ...

class RetireRequest(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: str
    def __init__(self, node: _Optional[str] = ...) -> None: ...

class Done(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
