"""Reading clouds' XML: elements by name, lists and texts bounded; names without namespaces."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from constellation.base.errors import FormatError

__all__ = ["Xml", "parse_xml"]

_MAX_TEXT = 4096
_MAX_ITEMS = 2000


class Xml:
    """One element of an answer and where it stands; namespaces are left out of names."""

    def __init__(self, element: ET.Element, where: str) -> None:
        self.element, self.where = element, where

    def find(self, path: str) -> Xml | None:
        """Give the element below, by names with / between; None where it is missing."""
        found: ET.Element | None = self.element
        for name in path.split("/"):
            found = (
                next((e for e in found if _name(e) == name), None) if found is not None else None
            )
        return Xml(found, f"{self.where}/{path}") if found is not None else None

    def items(self, path: str, *, most: int = _MAX_ITEMS) -> tuple[Xml, ...]:
        """Give the `item` or `member` elements of a list; none where it is missing.

        Raises:
            FormatError: more than `most`.
        """
        parent = self.find(path)
        if parent is None:
            return ()
        found = [e for e in parent.element if _name(e) in ("item", "member")]
        if len(found) > most:
            raise FormatError(f"{parent.where}: {len(found)} items, want {most} at most")
        return tuple(Xml(e, f"{parent.where}[{i}]") for i, e in enumerate(found))

    def text(self, path: str = "", *, default: str | None = None) -> str:
        """Give the text of an element, 4096 characters at most.

        Raises:
            FormatError: it is missing and has no default, is longer, or cannot be shown.
        """
        found = self.find(path) if path else self
        if found is None:
            if default is None:
                raise FormatError(f"{self.where}/{path}: missing")
            return default
        text = (found.element.text or "").strip()
        if len(text) > _MAX_TEXT or not (text.isprintable() or not text):
            raise FormatError(f"{found.where}: {text[:40]!r} is no text that we take")
        return text


def parse_xml(data: bytes, *, what: str) -> Xml:
    """Read an answer: UTF-8, whatever encoding it says it has.

    Raises:
        FormatError: not UTF-8, not well-formed XML, or with a document type (entities are never
            expanded).
    """
    # XML has no NUL; UTF-16, in which a document type could hide from us, has them, and the parser
    # would take it, whatever encoding it is told
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise FormatError(f"{what}: XML that is not UTF-8")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise FormatError(f"{what}: XML with a document type")
    try:
        return Xml(ET.fromstring(text), what)  # noqa: S314 - no document type, bounded size
    except (ET.ParseError, ValueError, RecursionError) as error:
        raise FormatError(f"{what}: not XML: {str(error)[:100]}") from None


def _name(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]
