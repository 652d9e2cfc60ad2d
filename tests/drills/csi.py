"""Speaking with a CSI driver over its socket, as the sidecars and kubelet do.

    async with Driver.at(path) as driver:
        made = await driver.call("Controller/CreateVolume", name="pvc-1", …)

Messages are those few fields of csi.v1 that the drills need, by number; what a driver says beyond
them is kept by protobuf, and not looked at. Source: Container Storage Interface 1.12, csi.proto.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpclib.client import Channel, UnaryUnaryMethod

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

__all__ = ["ACCESS", "CLAIM", "Driver"]

_TEXT, _NUMBER, _BOOL, _MAP = "string", "int64", "bool", "map"
# name -> (type, number); a type that is none of the four is another message; "…*": repeated
_MESSAGES: dict[str, dict[str, tuple[str, int]]] = {
    "Nothing": {},
    "CapacityRange": {"required_bytes": (_NUMBER, 1), "limit_bytes": (_NUMBER, 2)},
    "Mount": {"fs_type": (_TEXT, 1)},
    "AccessMode": {"mode": (_NUMBER, 1)},
    "VolumeCapability": {"mount": ("Mount", 2), "access_mode": ("AccessMode", 3)},
    "Topology": {"segments": (_MAP, 1)},
    "TopologyRequirement": {"requisite": ("Topology*", 1), "preferred": ("Topology*", 2)},
    "Volume": {
        "capacity_bytes": (_NUMBER, 1),
        "volume_id": (_TEXT, 2),
        "accessible_topology": ("Topology*", 5),
    },
    "CreateVolumeRequest": {
        "name": (_TEXT, 1),
        "capacity_range": ("CapacityRange", 2),
        "volume_capabilities": ("VolumeCapability*", 3),
        "parameters": (_MAP, 4),
        "accessibility_requirements": ("TopologyRequirement", 7),
    },
    "CreateVolumeResponse": {"volume": ("Volume", 1)},
    "DeleteVolumeRequest": {"volume_id": (_TEXT, 1)},
    "ControllerPublishVolumeRequest": {
        "volume_id": (_TEXT, 1),
        "node_id": (_TEXT, 2),
        "volume_capability": ("VolumeCapability", 3),
        "volume_context": (_MAP, 6),
    },
    "ControllerPublishVolumeResponse": {"publish_context": (_MAP, 1)},
    "ControllerUnpublishVolumeRequest": {"volume_id": (_TEXT, 1), "node_id": (_TEXT, 2)},
    "ControllerExpandVolumeRequest": {
        "volume_id": (_TEXT, 1),
        "capacity_range": ("CapacityRange", 2),
        "volume_capability": ("VolumeCapability", 4),
    },
    "ControllerExpandVolumeResponse": {"capacity_bytes": (_NUMBER, 1)},
    "GetPluginInfoResponse": {"name": (_TEXT, 1), "vendor_version": (_TEXT, 2)},
    "NodeGetInfoResponse": {
        "node_id": (_TEXT, 1),
        "max_volumes_per_node": (_NUMBER, 2),
        "accessible_topology": ("Topology", 3),
    },
}
_CALLS = {
    "Identity/GetPluginInfo": ("Nothing", "GetPluginInfoResponse"),
    "Controller/CreateVolume": ("CreateVolumeRequest", "CreateVolumeResponse"),
    "Controller/DeleteVolume": ("DeleteVolumeRequest", "Nothing"),
    "Controller/ControllerPublishVolume": (
        "ControllerPublishVolumeRequest",
        "ControllerPublishVolumeResponse",
    ),
    "Controller/ControllerUnpublishVolume": ("ControllerUnpublishVolumeRequest", "Nothing"),
    "Controller/ControllerExpandVolume": (
        "ControllerExpandVolumeRequest",
        "ControllerExpandVolumeResponse",
    ),
    "Node/NodeGetInfo": ("Nothing", "NodeGetInfoResponse"),
}
ACCESS = {"mount": {"fs_type": "ext4"}, "access_mode": {"mode": 1}}
"""One node reads and writes it, as ext4."""
CLAIM = {
    "csi.storage.k8s.io/pvc/name": "data",
    "csi.storage.k8s.io/pvc/namespace": "default",
    "csi.storage.k8s.io/pv/name": "pvc-0c5b7f0e-0000-4000-8000-000000000001",
}
"""What the provisioner adds to a StorageClass' parameters."""
_CALL_S = 120.0


def _messages() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="csi.proto", package="csi", syntax="proto3")
    kind = descriptor_pb2.FieldDescriptorProto
    plain = {_TEXT: kind.TYPE_STRING, _NUMBER: kind.TYPE_INT64, _BOOL: kind.TYPE_BOOL}
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (wanted, number) in fields.items():
            added = message.field.add(name=field, number=number, label=kind.LABEL_OPTIONAL)
            if wanted in plain:
                added.type = plain[wanted]
                continue
            type_ = f"{name}.{_map(message, field)}*" if wanted == _MAP else wanted
            added.type = kind.TYPE_MESSAGE
            if type_.endswith("*"):
                added.label = kind.LABEL_REPEATED
            added.type_name = f".csi.{type_.removesuffix('*')}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"csi.{name}"))
        for name in _MESSAGES
    }


def _map(message: Any, field: str) -> str:
    """Add the type of a map's entries to a message; give its name."""
    kind = descriptor_pb2.FieldDescriptorProto
    entry = "".join(part.capitalize() for part in field.split("_")) + "Entry"
    nested = message.nested_type.add(name=entry)
    nested.options.map_entry = True
    for number, part in enumerate(("key", "value"), start=1):
        nested.field.add(name=part, number=number, type=kind.TYPE_STRING, label=kind.LABEL_OPTIONAL)
    return entry


@dataclass(frozen=True, slots=True)
class Driver:
    """A driver that answers at a socket."""

    channel: Channel
    messages: dict[str, Any]

    @classmethod
    @contextlib.asynccontextmanager
    async def at(cls, path: Path, *, seconds: float) -> AsyncIterator[Self]:
        """Wait until it answers."""
        channel = Channel(path=str(path))
        try:
            driver = cls(channel, _messages())
            async with asyncio.timeout(seconds):
                while not await driver.answers():  # noqa: ASYNC110 - another program listens
                    await asyncio.sleep(0.2)
            yield driver
        finally:
            channel.close()

    async def answers(self) -> bool:
        """Say whether it is there yet."""
        try:
            await self.call("Identity/GetPluginInfo")
        except OSError:
            return False
        return True

    async def call(self, name: str, /, **fields: Any) -> dict[str, Any]:
        """Call it; give what it answers. Raises grpclib.GRPCError."""
        request, answer = (self.messages[m] for m in _CALLS[name])
        method: UnaryUnaryMethod[Any, Any] = UnaryUnaryMethod(
            self.channel, f"/csi.v1.{name}", request, answer
        )
        got = await method(json_format.ParseDict(fields, request()), timeout=_CALL_S)
        found: dict[str, Any] = json_format.MessageToDict(got, preserving_proto_field_name=True)
        return found
