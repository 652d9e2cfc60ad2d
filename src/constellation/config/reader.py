"""How the user's YAML becomes a `Config`: every fault at once, each with file and line.

A fault says what was expected, what was found, and a hint. Only plain YAML is read: no tags, no
anchors (a configuration must read the same from top to bottom), at most 256 KiB.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError

from constellation.base.errors import UserError
from constellation.config.not_yaml import NOT_YAML
from constellation.config.schema import CONFIG_VERSION, Config

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails

__all__ = ["parse_config", "place_of", "read_config"]

_MAX_BYTES = 256 * 1024
_Location = tuple[str | int, ...]


def read_config(path: Path) -> Config:
    """Read the configuration file.

    Raises:
        UserError: it is absent or cannot be used.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise UserError(
            "no such file", where=str(path), hint="`constellation config generate local` makes one"
        ) from None
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from None
    return parse_config(data, name=path.name)


def parse_config(data: bytes, *, name: str) -> Config:
    """Turn the file's bytes into a `Config`.

    Raises:
        UserError: with one line a fault: `name:line: field: expected …, found …`.
    """
    tree = _load(data, name)
    lines: dict[_Location, int] = {}
    plain = _plain(tree, (), lines, name)
    if not isinstance(plain, dict):
        raise UserError("expected a mapping with `version`, `name` …", where=f"{name}:1")
    _check_version(plain, lines, name)
    try:
        return Config.model_validate(plain)
    except ValidationError as error:
        raise _user_error(error.errors(include_url=False), lines, name) from None


def place_of(field: str, path: Path) -> str:
    """Give `file:line` of a field of the configuration file, empty where it is none of it.

    `field`: e.g. `provider.aws.image`, or its end (`terraform.program`) where only one place has
    that. Where the field itself is not written down: the nearest above it that is.
    """
    try:
        with path.open("rb") as file:
            tree = _load(file.read(_MAX_BYTES + 1), path.name)
        lines: dict[_Location, int] = {}
        _plain(tree, (), lines, path.name)
    except (OSError, UserError):
        return ""
    wanted = tuple(field.split("."))
    ends = [at for at in lines if at[-len(wanted) :] == wanted]
    if len(ends) == 1 and len(wanted) > 1:
        return f"{path.name}:{lines[ends[0]]}"
    above = [wanted[:n] for n in range(len(wanted), 0, -1) if wanted[:n] in lines]
    return f"{path.name}:{lines[above[0]]}" if above else ""


def _load(data: bytes, name: str) -> Any:
    if len(data) > _MAX_BYTES:
        raise UserError(f"expected at most {_MAX_BYTES} bytes, found more", where=name)
    try:
        return YAML(typ="rt").load(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise UserError("expected UTF-8 text", where=name) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark is not None else ""
        problem = str(error.problem or error.context).splitlines()[0]
        raise UserError(
            f"not YAML: {problem}", where=f"{name}{line}", hint="check indentation and quotes"
        ) from None
    except NOT_YAML as error:
        raise UserError(f"not YAML: {str(error)[:100]}", where=name) from None


def _plain(node: Any, at: _Location, lines: dict[_Location, int], name: str) -> Any:
    where = f"{name}:{lines.get(at, 1)}"
    if getattr(getattr(node, "anchor", None), "value", None) is not None:
        raise UserError("expected no anchors (&name) and aliases (*name)", where=where)
    if isinstance(node, CommentedMap):
        result: dict[str, Any] = {}
        for key in node:
            if not isinstance(key, str):
                raise UserError(f"expected a text as key, found {key!r}", where=where)
            lines[(*at, key)] = node.lc.key(key)[0] + 1
            result[str(key)] = _plain(node[key], (*at, key), lines, name)
        return result
    if isinstance(node, CommentedSeq):
        for index in range(len(node)):
            lines[(*at, index)] = node.lc.item(index)[0] + 1
        return [_plain(item, (*at, i), lines, name) for i, item in enumerate(node)]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    if node is None:
        return None
    raise UserError(
        f"expected text, number or true/false, found {type(node).__name__}", where=where
    )


def _check_version(plain: dict[str, Any], lines: dict[_Location, int], name: str) -> None:
    found = plain.get("version")
    if found != CONFIG_VERSION or isinstance(found, bool):
        shown = "nothing" if "version" not in plain else repr(found)
        raise UserError(
            f"version: expected {CONFIG_VERSION}, found {shown}",
            where=f"{name}:{lines.get(('version',), 1)}",
            hint="the file is of another program version; "
            "`constellation config generate local` shows the present format",
        )


def _user_error(
    errors: Sequence[ErrorDetails], lines: dict[_Location, int], name: str
) -> UserError:
    faults, hints = [], []
    for error in errors:
        location, message, hint = _fault(error)
        line = next(
            (lines[location[:n]] for n in range(len(location), 0, -1) if location[:n] in lines), 1
        )
        field = ".".join(map(str, location))
        faults.append(
            f"{name}:{line}: {field}: {message}" if field else f"{name}:{line}: {message}"
        )
        hints.append(hint)
    hint = "; ".join(dict.fromkeys(h for h in hints if h))
    first, *_ = faults
    where, _, rest = first.partition(": ")
    return UserError("\n".join((rest, *faults[1:])), where=where, hint=hint)


def _fault(error: ErrorDetails) -> tuple[_Location, str, str]:
    """Give location, message and hint of one of pydantic's errors."""
    location = tuple(part for part in error["loc"] if part != "[key]")
    found = _show(error["input"])
    match error["type"]:
        case "extra_forbidden":
            known = _known_keys(location[:-1])
            close = difflib.get_close_matches(str(location[-1]), known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
            return location, "expected no such key", hint
        case "missing":
            return location, "expected a value, found nothing", "add the key"
        case "value_error":
            return location, str(error["msg"]).removeprefix("Value error, "), ""
        case "literal_error" | "enum":
            return location, f"expected {error.get('ctx', {}).get('expected')}, found {found}", ""
        case "string_pattern_mismatch":
            pattern = error.get("ctx", {}).get("pattern")
            return location, f"expected text like {pattern}, found {found}", ""
        case _:
            wanted = str(error["msg"]).removeprefix("Input should be ")
            return location, f"expected {wanted}, found {found}", ""


def _known_keys(location: _Location) -> tuple[str, ...]:
    model: Any = Config
    for part in location:
        field = next((f for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        annotation: Any = field.annotation if field is not None else None
        if annotation is None and part in _group_names(location):
            continue
        arguments = [a for a in getattr(annotation, "__args__", ()) if a is not type(None)]
        model = arguments[-1] if arguments else annotation
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return ()
    return tuple(f.alias or n for n, f in model.model_fields.items())


def _group_names(location: _Location) -> _Location:
    return location[1:2] if location[:1] == ("nodeGroups",) else ()


def _show(value: object) -> str:
    text = repr(value)
    kind = {dict: "a mapping", list: "a list", type(None): "nothing"}.get(type(value))
    return kind or (text if len(text) <= 60 else text[:57] + "…")  # noqa: PLR2004 - one line
