from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Description(_message.Message):
    __slots__ = ("variant", "attester_id", "given_to_cluster")
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    ATTESTER_ID_FIELD_NUMBER: _ClassVar[int]
    GIVEN_TO_CLUSTER_FIELD_NUMBER: _ClassVar[int]
    variant: str
    attester_id: bytes
    given_to_cluster: bool
    def __init__(self, variant: _Optional[str] = ..., attester_id: _Optional[bytes] = ..., given_to_cluster: _Optional[bool] = ...) -> None: ...

class AttestChannelRequest(_message.Message):
    __slots__ = ("purpose", "exporter", "spki_digest", "peer_nonce")
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    EXPORTER_FIELD_NUMBER: _ClassVar[int]
    SPKI_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PEER_NONCE_FIELD_NUMBER: _ClassVar[int]
    purpose: str
    exporter: bytes
    spki_digest: bytes
    peer_nonce: bytes
    def __init__(self, purpose: _Optional[str] = ..., exporter: _Optional[bytes] = ..., spki_digest: _Optional[bytes] = ..., peer_nonce: _Optional[bytes] = ...) -> None: ...

class AttestVerifyRequest(_message.Message):
    __slots__ = ("nonces_root", "cluster_ca_digest")
    NONCES_ROOT_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_CA_DIGEST_FIELD_NUMBER: _ClassVar[int]
    nonces_root: bytes
    cluster_ca_digest: bytes
    def __init__(self, nonces_root: _Optional[bytes] = ..., cluster_ca_digest: _Optional[bytes] = ...) -> None: ...

class AttestReply(_message.Message):
    __slots__ = ("variant", "evidence")
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    variant: str
    evidence: bytes
    def __init__(self, variant: _Optional[str] = ..., evidence: _Optional[bytes] = ...) -> None: ...

class GiveToClusterRequest(_message.Message):
    __slots__ = ("cluster_id",)
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    cluster_id: bytes
    def __init__(self, cluster_id: _Optional[bytes] = ...) -> None: ...

class GiveToClusterReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
