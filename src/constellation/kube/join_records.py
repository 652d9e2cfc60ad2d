"""Join records as Kubernetes objects: one cluster-scoped JoinRecord a sequence number.

Group constellation.internal/v1alpha1. `spec.record` is the signed JSON, `spec.signature` the join
key's (base64); the other fields of the spec repeat it for people. What the API gives back is
believed by nobody: `join_log.advance` verifies it.
"""

from __future__ import annotations

import base64
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from lightkube.core.exceptions import ApiError
from lightkube.generic_resource import create_global_resource
from lightkube.models.meta_v1 import ObjectMeta

from constellation.base.errors import FormatError
from constellation.kube.client import raise_ours, status_of
from constellation.kube.join_log import SignedRecord, load_record
from constellation.kube.join_record_definition import GROUP, VERSION

if TYPE_CHECKING:
    from lightkube import AsyncClient

__all__ = ["GROUP", "VERSION", "KubernetesRecords"]

_AT_ONCE = 100
_NAME = re.compile(r"record-([0-9]{10})")
JoinRecord = create_global_resource(GROUP, VERSION, "JoinRecord", "joinrecords")


class KubernetesRecords:
    """The shared log in the Kubernetes API."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def get(self, sequence: int) -> SignedRecord | None:
        """Read one record; None if there is none.

        Raises:
            Unavailable: the API does not answer, or does not know JoinRecords yet.
            FormatError: the object is not one of ours.
        """
        with raise_ours():
            try:
                found = await self._client.get(JoinRecord, name=_name(sequence))
            except ApiError as error:
                if _absent(error):
                    return None
                raise
        return _parse(found.get("spec") or {}, sequence)

    async def create(self, sequence: int, record: SignedRecord) -> bool:
        """Write one record; False if its number is taken.

        Raises:
            Unavailable: the API does not answer; the record may have been written.
        """
        body = JoinRecord(metadata=ObjectMeta(name=_name(sequence)), spec=_spec(record))
        with raise_ours():
            try:
                await self._client.create(body)
            except ApiError as error:
                if status_of(error) == HTTPStatus.CONFLICT:
                    return False
                raise
        return True

    async def delete(self, sequence: int) -> None:
        """Remove one record; absent is fine.

        Raises:
            Unavailable: the API does not answer.
        """
        with raise_ours():
            try:
                await self._client.delete(JoinRecord, name=_name(sequence))
            except ApiError as error:
                if not _absent(error):
                    raise

    async def after(self, sequence: int) -> int | None:
        """Give the lowest number above `sequence`; None: there is none.

        An object that is not named as a record is none.

        Raises:
            Unavailable: the API does not answer.
        """
        numbers = []
        with raise_ours():
            async for item in self._client.list(JoinRecord, chunk_size=_AT_ONCE):
                found = _NAME.fullmatch((item.metadata and item.metadata.name) or "")
                if found is not None:
                    numbers.append(int(found[1]))
        return min((n for n in numbers if n > sequence), default=None)


def _name(sequence: int) -> str:
    return f"record-{sequence:010}"


def _absent(error: ApiError) -> bool:
    """Tell a missing object from a missing kind, which has no details of an object."""
    details = error.status.details
    return status_of(error) == HTTPStatus.NOT_FOUND and bool(details and details.name)


def _spec(record: SignedRecord) -> dict[str, Any]:
    entry = load_record(record).entry
    return {
        "record": record.data.decode(),
        "signature": base64.b64encode(record.signature).decode(),
        "kind": str(entry.kind),
        "time": entry.time,
        "node": entry.member.name if entry.member else entry.name,
        "address": entry.member.address if entry.member else entry.address,
        "reasons": list(entry.reasons),
    }


def _parse(spec: dict[str, Any], sequence: int) -> SignedRecord:
    record, signature = spec.get("record"), spec.get("signature")
    if not isinstance(record, str) or not isinstance(signature, str):
        raise FormatError(f"JoinRecord {_name(sequence)}: record or signature is missing")
    try:
        return SignedRecord(
            data=record.encode(), signature=base64.b64decode(signature, validate=True)
        )
    except ValueError:  # text that has no UTF-8, or is not even ASCII where base64 should be
        raise FormatError(
            f"JoinRecord {_name(sequence)}: record is no text or signature not base64"
        ) from None
