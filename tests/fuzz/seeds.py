"""Inputs to begin with, all made by our own fakes: whole worlds of AMD, Intel, clouds and nodes."""

from __future__ import annotations

import base64
import json
from functools import cache
from typing import Any

from constellation.attestation.tdx.quote import parse_quote
from tests.fakes import clouds
from tests.fakes.amd import NOW, AmdWorld
from tests.fakes.google import GoogleWorld
from tests.fakes.intel import IntelWorld

__all__ = ["amd", "certificates", "evidence", "google", "intel", "parts"]


@cache
def amd() -> AmdWorld:
    """Give an AMD of our own."""
    return AmdWorld()


@cache
def intel() -> IntelWorld:
    """Give an Intel of our own."""
    return IntelWorld()


@cache
def google() -> GoogleWorld:
    """Give a Google of our own."""
    return GoogleWorld(NOW)


@cache
def evidence() -> dict[str, bytes]:
    """Give one evidence container of every cloud variant, by the variant's name."""
    return {str(v): clouds.Machine.make(v).evidence().data for v in clouds.VARIANTS}


def parts(*names: str) -> list[bytes]:
    """Give the binary fields of these names in all containers."""
    found: list[bytes] = []
    for data in evidence().values():
        _collect(json.loads(data), frozenset(names), found)
    return list(dict.fromkeys(found))


def certificates() -> list[bytes]:
    """Give certificates of all our authorities, DER and PEM."""
    chain = parse_quote(intel().quote()).signature.pck_chain
    named = parts("vcek", "vlek", "ask", "asvk", "ak_certificate", "ak_chain")
    return [*named, bytes(chain)]


def _collect(value: Any, names: frozenset[str], found: list[bytes]) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            if name in names:
                texts = item if isinstance(item, list) else [item]
                found += [base64.b64decode(text) for text in texts if isinstance(text, str)]
            _collect(item, names, found)
