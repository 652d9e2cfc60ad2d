"""A Terraform provider in this process: plugin protocol 6, schemas of real ones, a world in memory.

async with provider(Provider(schema=…), socket) as place:
    environment["TF_REATTACH_PROVIDERS"] = reattach({address_of_the_provider: place})

Terraform reaches it by a unix socket that the environment names ("reattach", as provider developers
do), so that no plugin is installed. It validates by the schema only. Planning says "known after
apply" for what a cloud would fill in; applying fills that in, keeps the resource, and tells
`on_change(action, type, values)`, by which a test's cloud gets its machines.
Source: HashiCorp, tfplugin6.proto (field numbers); go-plugin, "reattach".
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from grpclib.const import Cardinality, Handler
from grpclib.encoding.base import CodecBase
from grpclib.server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from pathlib import Path

__all__ = ["Provider", "Resource", "provider", "reattach"]

_SERVICE = "/tfplugin6.Provider"
_UNKNOWN = msgspec.msgpack.Ext(0, b"\0")
_LIST = 2
# optional arguments that the real provider fills in when they are left out, as far as modules read
# them: the schemas do not tell these from the others
_FILLED_IN = frozenset(
    {
        ("google_compute_address", "address"),
        ("openstack_networking_floatingip_v2", "address"),
        ("openstack_lb_loadbalancer_v2", "vip_address"),
        ("openstack_lb_loadbalancer_v2", "vip_port_id"),
    }
)
_ADDRESSES = frozenset({"address", "ip_address", "private_ip_address", "vip_address", "dns_name"})
_MANY = 1 << 20


@dataclass(slots=True, kw_only=True)
class Resource:
    """A resource that exists: its type and its values as Terraform has them."""

    kind: str
    values: dict[str, Any]


def _filled(kind: str, attribute: str) -> str:
    """Give an address where the cloud gives one: ours takes no other text for a host."""
    return "192.0.2.10" if attribute in _ADDRESSES else f"{kind}-{attribute}"


@dataclass(slots=True, kw_only=True)
class Provider:
    """One provider's schemas and what was made by it.

    `fail` names types that cannot be made: what the cloud says then.
    `fill(kind, attribute, values)` gives what the cloud fills in.
    """

    schema: dict[str, Any]
    resources: dict[str, Resource] = field(default_factory=dict)
    fail: dict[str, str] = field(default_factory=dict)
    fill: Callable[[str, str, dict[str, Any]], Any] = field(
        default=lambda kind, attribute, _values: _filled(kind, attribute)
    )
    on_change: Callable[[str, Resource], None] = field(default=lambda _action, _resource: None)
    _made: int = 0

    def __mapping__(self) -> dict[str, Handler]:
        calls: dict[str, Callable[[dict[int, list[bytes]]], bytes]] = {
            "GetProviderSchema": self._get_schema,
            "ValidateProviderConfig": lambda _: b"",
            "ValidateResourceConfig": lambda _: b"",
            "ValidateDataResourceConfig": lambda _: b"",
            "ConfigureProvider": lambda _: b"",
            "UpgradeResourceState": self._upgrade,
            "ReadResource": self._read,
            "PlanResourceChange": self._plan,
            "ApplyResourceChange": self._apply,
            "ReadDataSource": self._read_data,
            "StopProvider": lambda _: b"",
        }
        return {f"{_SERVICE}/{name}": _handler(call) for name, call in calls.items()}

    def _get_schema(self, _request: dict[int, list[bytes]]) -> bytes:
        answer = _bytes(1, _schema(self.schema["provider"]))
        for number, kind in ((2, "resource_schemas"), (3, "data_source_schemas")):
            for name, block in self.schema[kind].items():
                answer += _bytes(number, _bytes(1, name.encode()) + _bytes(2, _schema(block)))
        return answer

    def _upgrade(self, request: dict[int, list[bytes]]) -> bytes:
        raw = _read(request[3][0])
        block = self.schema["resource_schemas"][request[1][0].decode()]
        return _bytes(1, _dynamic(_of_state(block, json.loads(raw[1][0]))))

    def _read(self, request: dict[int, list[bytes]]) -> bytes:
        values = _values(request[2][0])
        alive = values is not None and values["id"] in self.resources
        return _bytes(1, _dynamic(values if alive else None))

    def _plan(self, request: dict[int, list[bytes]]) -> bytes:
        kind = request[1][0].decode()
        proposed, prior = _values(request[3][0]), _values(request[2][0])
        if proposed is None or prior is not None:
            return _bytes(1, _dynamic(proposed))
        return _bytes(1, _dynamic(_mark(self.schema["resource_schemas"][kind], proposed, kind)))

    def _apply(self, request: dict[int, list[bytes]]) -> bytes:
        kind = request[1][0].decode()
        prior, planned = _values(request[2][0]), _values(request[3][0])
        if planned is None:
            assert prior is not None
            gone = self.resources.pop(prior["id"], None)
            if gone is not None:
                self.on_change("delete", gone)
            return _bytes(1, _dynamic(None))
        if kind in self.fail:
            said = _number(1, 1) + _bytes(2, self.fail[kind].encode())
            return _bytes(1, _dynamic(prior)) + _bytes(3, said)
        values = self._filled(kind, planned, self.schema["resource_schemas"][kind])
        self.resources[values["id"]] = Resource(kind=kind, values=values)
        action = "create" if prior is None else "update"
        self.on_change(action, self.resources[values["id"]])
        return _bytes(1, _dynamic(values))

    def _read_data(self, request: dict[int, list[bytes]]) -> bytes:
        kind = request[1][0].decode()
        config = _values(request[2][0])
        assert config is not None
        block = self.schema["data_source_schemas"][kind]
        return _bytes(1, _dynamic(self._filled(f"data.{kind}", _mark(block, config), block)))

    def _filled(self, kind: str, values: dict[str, Any], block: dict[str, Any]) -> dict[str, Any]:
        self._made += 1
        known = {k: v for k, v in values.items() if v != _UNKNOWN}
        if known.get("id") is None:
            known["id"] = f"{kind}-{self._made}"
        return {**_fill(block, values, lambda n: self.fill(kind, n, known)), "id": known["id"]}


def _fill(
    block: dict[str, Any], values: dict[str, Any], text: Callable[[str], Any]
) -> dict[str, Any]:
    """Give values with something in place of each unknown one."""
    filled = dict(values)
    for name, attribute in block["attributes"].items():
        if values.get(name) == _UNKNOWN:
            filled[name] = _something(attribute["type"], text(name))
    for name, nested in block["block_types"].items():
        if isinstance(values.get(name), list):
            filled[name] = [_fill(nested["block"], v, text) for v in values[name]]
    return filled


def _something(kind: Any, text: Any) -> Any:
    match kind:
        case "string":
            return text
        case "number":
            return 0
        case "bool":
            return False
        case "dynamic":
            # a value of unknown kind travels with its kind
            return [b'"string"', text]
        case ["map", _]:
            return {}
        case _:
            return []


def _of_state(block: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Read values as a state file has them: those of unknown kind with it, as an object."""
    read = dict(values)
    for name, attribute in block["attributes"].items():
        if attribute["type"] == "dynamic" and values.get(name) is not None:
            read[name] = [json.dumps(values[name]["type"]).encode(), values[name]["value"]]
    for name, nested in block["block_types"].items():
        if isinstance(values.get(name), list):
            read[name] = [_of_state(nested["block"], v) for v in values[name]]
    return read


def _mark(block: dict[str, Any], values: dict[str, Any], kind: str = "") -> dict[str, Any]:
    """Say "known after apply" of what only the provider can know."""
    marked = dict(values)
    for name, attribute in block["attributes"].items():
        unset = values.get(name) is None
        alone = not attribute["optional"] or name == "id" or (kind, name) in _FILLED_IN
        if unset and attribute["computed"] and alone:
            marked[name] = _UNKNOWN
    for name, nested in block["block_types"].items():
        inner = values.get(name)
        if isinstance(inner, list):
            marked[name] = [_mark(nested["block"], one) for one in inner]
    return marked


@contextlib.asynccontextmanager
async def provider(served: Provider, socket: Path) -> AsyncIterator[dict[str, Any]]:
    """Serve a provider; gives its part of TF_REATTACH_PROVIDERS."""
    server = Server([served], codec=_Raw())
    await server.start(path=str(socket))
    try:
        yield {
            "Protocol": "grpc",
            "ProtocolVersion": 6,
            "Pid": os.getpid(),
            "Test": True,
            "Addr": {"Network": "unix", "String": str(socket)},
        }
    finally:
        server.close()
        await server.wait_closed()


def reattach(found: Mapping[str, dict[str, Any]]) -> str:
    """Write the value of TF_REATTACH_PROVIDERS: addresses of providers and where they are."""
    return json.dumps(dict(found))


class _Raw(CodecBase):
    """Messages are bytes here: only their fields' numbers matter."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        del message_type
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        del message_type
        return data


def _handler(call: Callable[[dict[int, list[bytes]]], bytes]) -> Handler:
    async def serve(stream: Any) -> None:
        request = await stream.recv_message()
        await stream.send_message(call(_read(request or b"")))

    return Handler(serve, Cardinality.UNARY_UNARY, bytes, bytes)


# protocol buffers, as far as these messages go: https://protobuf.dev/programming-guides/encoding


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field_number: int, value: int) -> bytes:
    return _varint(field_number << 3) + _varint(value)


def _bytes(field_number: int, value: bytes) -> bytes:
    return _varint(field_number << 3 | 2) + _varint(len(value)) + value


def _read(data: bytes) -> dict[int, list[bytes]]:
    """Read a message's fields that are bytes; numbers are passed over."""
    found: dict[int, list[bytes]] = {}
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while position < len(data):
        key = varint()
        if key & 7 == 0:
            varint()
            continue
        assert key & 7 == 2, "a wire type that no message here has"
        size = varint()
        found.setdefault(key >> 3, []).append(data[position : position + size])
        position += size
    return found


def _dynamic(values: Any) -> bytes:
    return _bytes(1, msgspec.msgpack.encode(values))


def _values(data: bytes) -> dict[str, Any] | None:
    (packed,) = _read(data)[1]
    found: dict[str, Any] | None = msgspec.msgpack.decode(packed)
    return found


def _schema(block: dict[str, Any]) -> bytes:
    return _bytes(2, b"".join(_block(block)))


def _block(block: dict[str, Any]) -> Iterator[bytes]:
    for name, attribute in block["attributes"].items():
        kind = _bytes(1, name.encode()) + _bytes(2, json.dumps(attribute["type"]).encode())
        for number, flag in ((4, "required"), (5, "optional"), (6, "computed")):
            kind += _number(number, 1) if attribute[flag] else b""
        yield _bytes(2, kind)
    for name, nested in block["block_types"].items():
        yield _bytes(
            3,
            _bytes(1, name.encode())
            + _bytes(2, b"".join(_block(nested["block"])))
            + _number(3, _LIST)
            + (_number(4, nested["min_items"]) if nested["min_items"] else b"")
            + (_number(5, nested["max_items"]) if nested["max_items"] else b""),
        )
