from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class GetDataKeyRequest(_message.Message):
    __slots__ = ("id", "size_bytes")
    ID_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    id: str
    size_bytes: int
    def __init__(self, id: _Optional[str] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class GetDataKeyReply(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    def __init__(self, key: _Optional[bytes] = ...) -> None: ...

class RedeemRequest(_message.Message):
    __slots__ = ("record", "signature")
    RECORD_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    record: bytes
    signature: bytes
    def __init__(self, record: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class RedeemReply(_message.Message):
    __slots__ = ("master_key", "master_salt", "join_private_key", "provider_access")
    MASTER_KEY_FIELD_NUMBER: _ClassVar[int]
    MASTER_SALT_FIELD_NUMBER: _ClassVar[int]
    JOIN_PRIVATE_KEY_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_ACCESS_FIELD_NUMBER: _ClassVar[int]
    master_key: bytes
    master_salt: bytes
    join_private_key: bytes
    provider_access: bytes
    def __init__(self, master_key: _Optional[bytes] = ..., master_salt: _Optional[bytes] = ..., join_private_key: _Optional[bytes] = ..., provider_access: _Optional[bytes] = ...) -> None: ...
