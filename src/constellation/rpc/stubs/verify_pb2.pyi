from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class GetEvidenceRequest(_message.Message):
    __slots__ = ("nonce",)
    NONCE_FIELD_NUMBER: _ClassVar[int]
    nonce: bytes
    def __init__(self, nonce: _Optional[bytes] = ...) -> None: ...

class GetEvidenceReply(_message.Message):
    __slots__ = ("variant", "evidence", "cluster_ca_certificate", "node_name")
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_CA_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    variant: str
    evidence: bytes
    cluster_ca_certificate: bytes
    node_name: str
    def __init__(self, variant: _Optional[str] = ..., evidence: _Optional[bytes] = ..., cluster_ca_certificate: _Optional[bytes] = ..., node_name: _Optional[str] = ...) -> None: ...
