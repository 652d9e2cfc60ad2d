"""How the table of fields becomes files for people: example, JSON schema, reference page."""

from __future__ import annotations

import io
import json
import textwrap
from enum import StrEnum
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from ruamel.yaml import YAML

from constellation.base.errors import UserError
from constellation.config.not_yaml import NOT_YAML
from constellation.config.schema import Config

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo

__all__ = ["dump_example", "dump_reference", "dump_schema", "set_fields", "set_provider_fields"]

_WIDTH = 98


def dump_example(config: Config) -> str:
    """Write a configuration with a comment at every field."""
    lines = [f"# {Config.__doc__}", ""]
    _write(config, 0, lines)
    return "\n".join(lines).rstrip() + "\n"


def set_fields(text: str, values: Mapping[str, str | int]) -> str:
    """Change fields in a file's text, "a.b" names b in a; comments and all else stay as they are.

    Raises:
        UserError: the text is not YAML, or has no such section.
    """
    yaml = YAML(typ="rt", pure=True)
    yaml.preserve_quotes = True
    yaml.width = 10_000
    try:
        tree = yaml.load(text)
    except NOT_YAML as error:
        raise UserError(f"not YAML: {str(error)[:200]}") from None
    for name, value in values.items():
        *sections, key = name.split(".")
        place = tree
        for section in sections:
            if not isinstance(place.get(section), dict):
                raise UserError(f"expected the section {section}, found none", where=name)
            place = place[section]
        place[key] = value
    out = io.StringIO()
    yaml.dump(tree, out)
    return out.getvalue()


def set_provider_fields(text: str, *, provider: str, values: dict[str, str]) -> str:
    """Change fields of a provider's block, as `set_fields`."""
    return set_fields(text, {f"provider.{provider}.{name}": v for name, v in values.items()})


def dump_schema() -> str:
    """Write the JSON schema (2020-12) of the configuration file."""
    return json.dumps(Config.model_json_schema(by_alias=True), indent=2, sort_keys=True) + "\n"


def dump_reference() -> str:
    """Write the reference page (Markdown)."""
    lines = [
        "# constellation-conf.yaml",
        "",
        "Generated from `src/constellation/config`; `make docs` writes it anew.",
        "Unknown keys and wrong types are errors that name file and line.",
        "",
        "| key | type | default | meaning |",
        "|---|---|---|---|",
    ]
    _reference(Config, "", lines)
    return "\n".join(lines) + "\n"


def _write(section: BaseModel, depth: int, lines: list[str]) -> None:
    pad = "  " * depth
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if value is None:
            continue
        text = " ".join((field.description or "").split())
        lines += textwrap.wrap(
            text, _WIDTH, initial_indent=f"{pad}# ", subsequent_indent=f"{pad}# "
        )
        key = field.alias or name
        if isinstance(value, BaseModel):
            lines.append(f"{pad}{key}:")
            _write(value, depth + 1, lines)
        elif isinstance(value, dict) and any(isinstance(v, BaseModel) for v in value.values()):
            lines.append(f"{pad}{key}:")
            for group, item in value.items():
                lines.append(f"{pad}  {group}:")
                _write(item, depth + 2, lines)
        else:
            lines.append(f"{pad}{key}: {_scalar(value)}")
        if depth == 0:
            lines.append("")


def _reference(model: type[BaseModel], prefix: str, lines: list[str]) -> None:
    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        text = " ".join((field.description or "").split()).replace("|", "\\|")
        nested = _nested(field)
        if nested is None:
            usual = None if field.is_required() else field.get_default(call_default_factory=True)
            default = "" if usual is None else f"`{_scalar(usual)}`"
            lines.append(f"| `{key}` | {_kind(field)} | {default} | {text} |")
        else:
            inner, is_map = nested
            lines.append(f"| `{key}` | section | | {text} |")
            _reference(inner, f"{key}.NAME." if is_map else f"{key}.", lines)


def _nested(field: FieldInfo) -> tuple[type[BaseModel], bool] | None:
    annotation: Any = field.annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    for argument in get_args(annotation):
        if isinstance(argument, type) and issubclass(argument, BaseModel):
            return argument, get_origin(annotation) is dict
    return None


def _kind(field: FieldInfo) -> str:
    return _kind_of(field.annotation)


def _kind_of(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    parts = [_kind_of(a) for a in arguments if origin is not Literal and a not in _NO_KIND]
    if origin is Annotated:
        return parts[0]
    if origin in _PHRASES:
        return _PHRASES[origin].format(*parts)
    if origin in (Union, UnionType):
        return ", ".join(parts)
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return ", ".join(f"`{v}`" for v in annotation)
    return _NAMES.get(annotation) or ", ".join(f"`{_scalar(v)}`" for v in arguments)


_NO_KIND = (type(None), ...)
_NAMES: dict[Any, str] = {str: "text", int: "number", bool: "true or false"}
_PHRASES: dict[Any, str] = {tuple: "list of {}", dict: "{} to {}"}


def _scalar(value: object) -> str:
    """Write a value on one line of YAML; lists and mappings in JSON's form, which YAML has too."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | dict):
        return json.dumps(value)
    return str(value) or '""'
