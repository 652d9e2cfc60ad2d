from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HandOverRequest(_message.Message):
    __slots__ = ("owner_signature", "policy", "policy_signature", "release_chain")
    OWNER_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    POLICY_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    RELEASE_CHAIN_FIELD_NUMBER: _ClassVar[int]
    owner_signature: bytes
    policy: bytes
    policy_signature: bytes
    release_chain: bytes
    def __init__(self, owner_signature: _Optional[bytes] = ..., policy: _Optional[bytes] = ..., policy_signature: _Optional[bytes] = ..., release_chain: _Optional[bytes] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("owner_signature",)
    OWNER_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    owner_signature: bytes
    def __init__(self, owner_signature: _Optional[bytes] = ...) -> None: ...

class PolicyReport(_message.Message):
    __slots__ = ("channel_signature", "control_planes")
    CHANNEL_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    CONTROL_PLANES_FIELD_NUMBER: _ClassVar[int]
    channel_signature: bytes
    control_planes: _containers.RepeatedCompositeFieldContainer[Obeyed]
    def __init__(self, channel_signature: _Optional[bytes] = ..., control_planes: _Optional[_Iterable[_Union[Obeyed, _Mapping]]] = ...) -> None: ...

class Obeyed(_message.Message):
    __slots__ = ("node_name", "serial", "digest", "problem", "access_digest")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    SERIAL_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    ACCESS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    serial: int
    digest: bytes
    problem: str
    access_digest: bytes
    def __init__(self, node_name: _Optional[str] = ..., serial: _Optional[int] = ..., digest: _Optional[bytes] = ..., problem: _Optional[str] = ..., access_digest: _Optional[bytes] = ...) -> None: ...
