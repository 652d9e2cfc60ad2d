"""Byte edits of published evidence, as mutations.json describes them."""

from __future__ import annotations

from typing import Any

__all__ = ["edited"]


def edited(data: bytes, ops: list[dict[str, Any]]) -> bytes:
    """Apply the byte operations of an entry; another kind of operation is the caller's."""
    out = bytearray(data)
    for op in ops:
        match op["op"]:
            case "xor":
                out[op["offset"]] ^= op["mask"]
            case "set":
                new = bytes.fromhex(op["hex"])
                out[op["offset"] : op["offset"] + len(new)] = new
            case "truncate":
                del out[op["length"] :]
            case other:
                raise AssertionError(f"operation {other} is not one on bytes")
    return bytes(out)
