"""Strict JSON for everything that is signed, sent or stored: one spelling, no unknown keys.

`dump` writes the canonical form (RFC 8785 restricted to what we use: objects, arrays, strings,
integers, booleans; sorted keys, no spaces), so that equal values have equal bytes. `load` turns
bytes into a frozen dataclass and refuses what a lenient reader would repair. `bytes` travel as
standard base64 with padding.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import types
from enum import StrEnum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from constellation.base.errors import FormatError
from constellation.base.secret import Secret

__all__ = ["dump", "load", "load_value"]

T = TypeVar("T")
_MAX_DEPTH = 32


def dump(value: Any) -> bytes:
    """Write a dataclass (or plain value) as canonical JSON, UTF-8, without a final newline."""
    return json.dumps(
        _plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def load(kind: type[T], data: bytes, *, what: str, max_bytes: int) -> T:
    """Read one JSON document into the dataclass `kind`.

    Args:
        kind: a dataclass whose fields are str, int, bool, bytes, Secret, StrEnum, dataclasses,
            tuples or dicts with string keys of these, or `X | None`.
        data: UTF-8 JSON.
        what: how to name the document in an error.
        max_bytes: longer documents are refused before they are parsed.

    Raises:
        FormatError: not JSON, a duplicate, unknown or missing key, a wrong type; says where.
    """
    if len(data) > max_bytes:
        raise FormatError(f"{what}: {len(data)} bytes, at most {max_bytes} are read")
    return load_value(kind, _parse(data, what), what=what)


def load_value(kind: type[T], value: Any, *, what: str) -> T:
    """Turn an already parsed JSON (or YAML) value into `kind`; see `load`."""
    result: T = _typed(kind, value, what, 0)
    return result


def _parse(data: bytes, what: str) -> Any:
    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise FormatError(f"{what}: duplicate key {key[:40]!r}")
            found[key] = value
        return found

    def no_float(text: str) -> Any:
        raise FormatError(f"{what}: {text[:40]!r} is not an integer")

    try:
        text = data.decode("utf-8", "strict")
        value = json.loads(
            text, object_pairs_hook=no_duplicates, parse_float=no_float, parse_constant=no_float
        )
        if "\\u" in text:
            # an escape may name half a surrogate pair, which is no character and has no UTF-8
            json.dumps(value, ensure_ascii=False).encode()
        return value  # noqa: TRY300 - the check belongs to what may fail
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError, ValueError) as error:
        raise FormatError(f"{what}: not JSON: {error}") from None


def _plain(value: Any) -> Any:  # noqa: PLR0911 - one a type
    match value:
        case Secret():
            return base64.b64encode(value.reveal()).decode()
        case bytes():
            return base64.b64encode(value).decode()
        case StrEnum():
            return str(value)
        case bool() | int() | str() | None:
            return value
        case tuple() | list():
            return [_plain(v) for v in value]
        case dict():
            return {str(k): _plain(v) for k, v in value.items()}
        case _:
            pass
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    raise ValueError(f"no canonical JSON for {type(value).__name__}")


def _typed(kind: Any, value: Any, where: str, depth: int) -> Any:  # noqa: C901, PLR0911 - one a type
    if depth > _MAX_DEPTH:
        raise FormatError(f"{where}: nested deeper than {_MAX_DEPTH}")
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        options = get_args(kind)
        if value is None and type(None) in options:
            return None
        (only,) = (o for o in options if o is not type(None))
        return _typed(only, value, where, depth + 1)
    if origin is tuple:
        _expect(value, list, where)
        (item, *_rest) = get_args(kind)
        return tuple(_typed(item, v, f"{where}[{i}]", depth + 1) for i, v in enumerate(value))
    if origin is dict:
        _expect(value, dict, where)
        key, item = get_args(kind)
        return {
            _key(key, k, where): _typed(item, v, f"{where}.{k}", depth + 1)
            for k, v in value.items()
        }
    if dataclasses.is_dataclass(kind):
        return _record(kind, value, where, depth)
    if kind in (bytes, Secret):
        _expect(value, str, where)
        try:
            return kind(base64.b64decode(value, validate=True))
        except (binascii.Error, ValueError):
            raise FormatError(f"{where}: not base64") from None
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        _expect(value, str, where)
        try:
            return kind(value)
        except ValueError:
            raise FormatError(f"{where}: {value[:40]!r} is none of {', '.join(kind)}") from None
    _expect(value, kind, where)
    return value


def _key(kind: Any, key: Any, where: str) -> Any:
    _expect(key, str, f"{where}: a key")
    if kind is int:
        if not key.isascii() or not key.isdigit() or (key != "0" and key.startswith("0")):
            raise FormatError(f"{where}: key {key[:40]!r} is not a number")
        return int(key)
    return key


def _record(kind: Any, value: Any, where: str, depth: int) -> Any:
    _expect(value, dict, where)
    for key in value:  # of YAML: JSON's are text
        _expect(key, str, f"{where}: a key")
    hints = get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    if unknown := sorted(value.keys() - fields.keys()):
        raise FormatError(f"{where}: unknown key {unknown[0][:40]!r}")
    required = {
        n
        for n, f in fields.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    if missing := sorted(required - value.keys()):
        raise FormatError(f"{where}: {missing[0]} is missing")
    return kind(**{k: _typed(hints[k], v, f"{where}.{k}", depth + 1) for k, v in value.items()})


def _expect(value: Any, kind: type, where: str) -> None:
    # bool is an int to Python, not to us
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise FormatError(f"{where}: {type(value).__name__}, want {kind.__name__}")
