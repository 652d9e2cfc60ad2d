"""Strict JSON: what a lenient reader would repair is refused, quickly."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.base import decode
from constellation.base.errors import FormatError


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    text: str
    names: dict[str, str]


def load(data: bytes) -> Note:
    return decode.load(Note, data, what="note", max_bytes=1 << 20)


_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(_TEXT, st.dictionaries(_TEXT, _TEXT))
def test_what_is_written_is_read_again(text: str, names: dict[str, str]) -> None:
    note = Note(text=text, names=names)
    assert load(decode.dump(note)) == note


def test_half_a_surrogate_pair_is_no_text() -> None:
    assert load(b'{"text":"\\ud83d\\ude00","names":{}}').text == "\U0001f600"
    for text in (b'{"text":"\\ud83d","names":{}}', b'{"text":"","names":{"\\udc00":""}}'):
        with pytest.raises(FormatError, match="not JSON"):
            load(text)


def test_a_key_twice_is_named_in_time_linear_in_the_document() -> None:
    names = ",".join(f'"{n}":""' for n in range(60_000))
    start = time.process_time()
    with pytest.raises(FormatError, match="duplicate key '59999'"):
        load(f'{{"text":"","names":{{{names},"59999":""}}}}'.encode())
    assert time.process_time() - start < 1
