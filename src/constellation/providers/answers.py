"""Reading a cloud's JSON: the fields that we use, each typed and bounded; the others are theirs.

Unlike our own documents (`base.decode`) a cloud's answers grow fields at any time, so unknown ones
are passed over. What is read is checked: kind, length, characters. A cloud's answers are claims of
an untrusted party (design, section 2), and these texts end up in logs and on terminals.
"""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Any, Final

from constellation.base.errors import FormatError
from constellation.providers.protocols import Role

__all__ = ["MAX_ANSWER_BYTES", "NAME", "Fields", "last_part", "parse", "role_of"]

MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MAX_TEXT = 4096
_MAX_ITEMS = 5000


class Fields:
    """One JSON object of an answer and where it stands, for errors that say where."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise FormatError(f"{where}: {type(value).__name__}, want an object")
        self._value: dict[str, Any] = value
        self.where = where

    def has(self, key: str) -> bool:
        """Say whether a field is there and not null."""
        return self._value.get(key) is not None

    def fields(self, key: str) -> Fields:
        """Give the object in a field. Raises FormatError."""
        return Fields(self._get(key), f"{self.where}.{key}")

    def fields_or_none(self, key: str) -> Fields | None:
        """Give the object in a field, None where it is missing or null. Raises FormatError."""
        return self.fields(key) if self.has(key) else None

    def items(self, key: str, *, most: int = _MAX_ITEMS) -> tuple[Fields, ...]:
        """Give the objects of a list, none where it is missing or null. Raises FormatError."""
        where = self._below(key)
        return tuple(
            Fields(item, f"{where}[{i}]") for i, item in enumerate(self._list(key, most=most))
        )

    def texts(self, key: str, *, most: int = _MAX_ITEMS) -> tuple[str, ...]:
        """Give the texts of a list, none where it is missing or null. Raises FormatError."""
        return tuple(
            _text(item, f"{self.where}.{key}[{i}]", _MAX_TEXT)
            for i, item in enumerate(self._list(key, most=most))
        )

    def values(self) -> tuple[tuple[str, Fields], ...]:
        """Give names and objects of an object that is a map. Raises FormatError."""
        if len(self._value) > _MAX_ITEMS:
            raise FormatError(f"{self.where}: {len(self._value)} entries, at most {_MAX_ITEMS}")
        return tuple((k, Fields(v, self._below(k))) for k, v in self._value.items())

    def text(self, key: str, *, longest: int = _MAX_TEXT) -> str:
        """Give a text that is printable and not empty. Raises FormatError."""
        return _text(self._get(key), f"{self.where}.{key}", longest)

    def text_or(self, key: str, default: str, *, longest: int = _MAX_TEXT) -> str:
        """Give a text, or `default` where it is missing, null or empty. Raises FormatError."""
        value = self._value.get(key)
        return default if value in (None, "") else self.text(key, longest=longest)

    def name(self, key: str) -> str:
        """Give a text that may name a resource: letters, digits and `._-`. Raises FormatError."""
        text = self.text(key)
        if not NAME.fullmatch(text):
            raise FormatError(f"{self.where}.{key}: {text[:60]!r} is no name")
        return text

    def number(self, key: str, *, most: int) -> int:
        """Give an integer from 0 on, also as digits in a text or as 24.0. Raises FormatError."""
        value = self._get(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20:  # noqa: PLR2004 - 2^64 has 20 digits
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise FormatError(f"{self.where}.{key}: want an integer from 0 to {most}")
        return value

    def address(self, key: str) -> str:
        """Give an IPv4 address as text. Raises FormatError."""
        text = self.text(key, longest=64)
        try:
            return str(ipaddress.IPv4Address(text))
        except ValueError:
            raise FormatError(f"{self.where}.{key}: {text!r} is no IPv4 address") from None

    def raw(self, key: str) -> Any:
        """Give a field as it came, to hand back to the service that sent it."""
        return self._value.get(key)

    def _below(self, key: str) -> str:
        # a map's keys are the cloud's own words, and this ends up on terminals
        return f"{self.where}.{key[:60] if key.isprintable() else repr(key[:60])}"

    def _get(self, key: str) -> Any:
        if self._value.get(key) is None:
            raise FormatError(f"{self.where}: {key} is missing")
        return self._value[key]

    def _list(self, key: str, *, most: int) -> list[Any]:
        value = self._value.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise FormatError(f"{self._below(key)}: {type(value).__name__}, want a list")
        if len(value) > most:
            raise FormatError(f"{self._below(key)}: {len(value)} items, at most {most} are read")
        return value


def parse(body: bytes, *, what: str) -> Fields:
    """Read an answer that is one JSON object. Raises FormatError."""
    if len(body) > MAX_ANSWER_BYTES:
        raise FormatError(f"{what}: {len(body)} bytes, at most {MAX_ANSWER_BYTES} are read")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise FormatError(f"{what}: not JSON") from None
    return Fields(value, what)


def last_part(text: str, *, where: str) -> str:
    """Give the last segment of a resource's path. Raises FormatError."""
    part = text.rpartition("/")[2]
    if not NAME.fullmatch(part):
        raise FormatError(f"{where}: {text[:80]!r} names nothing")
    return part


def role_of(text: str, *, where: str) -> Role:
    """Read the role that a machine's tag claims. Raises FormatError."""
    try:
        return Role(text)
    except ValueError:
        raise FormatError(f"{where}: {text[:40]!r} is no role") from None


def _text(value: Any, where: str, longest: int) -> str:
    if not isinstance(value, str):
        raise FormatError(f"{where}: {type(value).__name__}, want text")
    if not value or len(value) > longest or not value.isprintable():
        raise FormatError(f"{where}: want 1 to {longest} printable characters")
    return value
