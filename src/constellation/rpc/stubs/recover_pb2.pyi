from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class RecoverRequest(_message.Message):
    __slots__ = ("owner_signature", "master_key", "master_salt", "time")
    OWNER_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    MASTER_KEY_FIELD_NUMBER: _ClassVar[int]
    MASTER_SALT_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    owner_signature: bytes
    master_key: bytes
    master_salt: bytes
    time: int
    def __init__(self, owner_signature: _Optional[bytes] = ..., master_key: _Optional[bytes] = ..., master_salt: _Optional[bytes] = ..., time: _Optional[int] = ...) -> None: ...

class RecoverReply(_message.Message):
    __slots__ = ("node_name",)
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    def __init__(self, node_name: _Optional[str] = ...) -> None: ...
