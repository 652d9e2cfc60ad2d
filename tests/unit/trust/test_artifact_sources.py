"""An artifact source has one reading, and no place for a secret."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.base.errors import FormatError
from constellation.trust.artifact_sources import MAX_SOURCES, parse_source, parse_sources

DIGEST = "ab" * 32


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://files.example", "https://files.example/sha256/"),
        ("https://files.example/", "https://files.example/sha256/"),
        ("https://files.example:443/k8s/v1/", "https://files.example/k8s/v1/sha256/"),
        ("http://10.0.3.7:8080/c", "http://10.0.3.7:8080/c/sha256/"),
        (
            "https://storage.googleapis.com/my_bucket/c",
            "https://storage.googleapis.com/my_bucket/c/sha256/",
        ),
        ("http://mirror", "http://mirror/sha256/"),
    ],
)
def test_files_lie_below_by_digest(text: str, url: str) -> None:
    source = parse_source(text)
    assert source.url_of(DIGEST) == url + DIGEST
    assert parse_source(str(source)) == source


@pytest.mark.parametrize(
    "text",
    [
        "",
        "files.example",
        "ftp://files.example",
        "file:///etc/passwd",
        "HTTPS://files.example",
        "https://Files.example",
        "https://user:secret@files.example",
        "https://user@files.example",
        "https://files.example/?token=secret",
        "https://files.example/#x",
        "https://files.example/%2e%2e/x",
        "https://files.example/../x",
        "https://files.example/./x",
        "https://files.example//x",
        "https://files.example:0",
        "https://files.example:65536",
        "https://files.example:",
        "https://-files.example",
        "https://files..example",
        "https://files.example.",
        "https://[::1]/",
        "http://2130706433/",
        "http://127.1/",
        "http://0177.0.0.1.2/",
        "http://files.example\n",
        "http://files.example/\r\nHost: x",
        "http://files.example/a b",
        "https://f\u00efles.example",
        "https://files.example/" + "x" * 256,
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="artifact source"):
        parse_source(text)


def test_an_address_is_known_as_one() -> None:
    assert str(parse_source("http://169.254.169.254/x").address) == "169.254.169.254"
    assert parse_source("http://files.example").address is None


def test_sources_keep_their_order_and_stand_there_once() -> None:
    texts = ("https://b.example", "https://a.example")
    assert tuple(map(str, parse_sources(texts))) == texts
    with pytest.raises(FormatError, match="twice"):
        parse_sources(("https://a.example", "https://a.example:443/"))
    with pytest.raises(FormatError, match=f"at most {MAX_SOURCES}"):
        parse_sources(tuple(f"https://{n}.example" for n in range(MAX_SOURCES + 1)))


_PARTS = st.sampled_from(
    ["http://", "https://", "a", "10.0.0.1", ".", "..", "/", "//", ":", "8080", "@", "?", "#",
     "%2e", "\\", "[", "]", "0x7f", "1", "-", "_", "\n", " "]
)  # fmt: skip


@given(st.lists(_PARTS, max_size=9).map("".join) | st.text(max_size=40))
def test_what_is_taken_is_read_alike_by_the_library_that_asks(text: str) -> None:
    try:
        source = parse_source(text)
    except FormatError:
        return
    url = source.url_of(DIGEST)
    seen = urlsplit(url)
    assert (seen.scheme, seen.hostname) == (source.scheme, source.host)
    assert (seen.port or {"http": 80, "https": 443}[seen.scheme]) == source.port
    assert (seen.username, seen.password, seen.query, seen.fragment) == (None, None, "", "")
    assert seen.path == f"{source.path}/sha256/{DIGEST}"
    assert ".." not in seen.path.split("/")
    assert parse_source(str(source)) == source
