"""What becomes of the kubeconfig that the first node made: the user's endpoint, mode 0600.

kubectl starts a program that a kubeconfig names, and asks a proxy that it names. So nothing is
taken over but a certificate, a key and a CA: a node may not run programs on the workstation.
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.error import ReusedAnchorWarning

from constellation.base import files
from constellation.base.errors import FormatError
from constellation.config.not_yaml import NOT_YAML

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["only_endpoint", "with_endpoint", "write"]

_MAX_BYTES = 256 * 1024
_TOP = {"apiVersion", "kind", "clusters", "users", "contexts", "current-context", "preferences"}
_CLUSTER = {"server", "certificate-authority-data"}
_USER = {"client-certificate-data", "client-key-data"}
_CONTEXT = {"cluster", "user"}


def write(path: Path, data: bytes, *, endpoint: str) -> None:
    """Write the kubeconfig for the user.

    Raises:
        FormatError: it is not a kubeconfig.
    """
    files.write_atomic(path, with_endpoint(data, endpoint=endpoint), mode=0o600)


def only_endpoint(data: bytes) -> str:
    """Give where the only cluster of a user's kubeconfig is, host:port.

    Other programs add clusters of theirs to such a file, and let it lead there.

    Raises:
        FormatError: not a kubeconfig with one cluster.
    """
    value = _load(data)
    try:
        scheme, _, endpoint = str(value["clusters"][0]["cluster"]["server"]).partition("://")
    except (LookupError, TypeError) as error:
        raise FormatError(f"kubeconfig: not one: {type(error).__name__}") from None
    if scheme != "https":
        raise FormatError("kubeconfig: want a server with https")
    return endpoint


def with_endpoint(data: bytes, *, endpoint: str) -> bytes:
    """Give the same kubeconfig with `endpoint` (host:port) as the server of its only cluster.

    Raises:
        FormatError: not a kubeconfig with one cluster.
    """
    value = _load(data)
    try:
        value["clusters"][0]["cluster"]["server"] = f"https://{endpoint}"
        _demand_plain(value)
    except (LookupError, TypeError, AttributeError) as error:
        raise FormatError(f"kubeconfig: not one: {type(error).__name__}") from None
    text = io.StringIO()
    _yaml().dump(value, text)
    return text.getvalue().encode()


def _load(data: bytes) -> Any:
    if len(data) > _MAX_BYTES:
        raise FormatError(f"kubeconfig: {len(data)} bytes, at most {_MAX_BYTES} are read")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ReusedAnchorWarning)
            value: Any = _yaml().load(data.decode())
        if value["kind"] != "Config" or len(value["clusters"]) != 1:
            raise FormatError("kubeconfig: want kind Config and one cluster")
    except (*NOT_YAML, ReusedAnchorWarning, TypeError, AttributeError) as error:
        raise FormatError(f"kubeconfig: not one: {type(error).__name__}") from None
    return value


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.width = 100_000
    return yaml


def _demand_plain(value: dict[str, Any]) -> None:
    parts = [("kubeconfig", value, _TOP)]
    for kind, names in (("cluster", _CLUSTER), ("user", _USER), ("context", _CONTEXT)):
        for entry in value.get(f"{kind}s") or ():
            parts += [(f"kubeconfig: {kind}s", entry, {"name", kind}), (kind, entry[kind], names)]
    for where, part, names in parts:
        if strange := sorted(str(key) for key in part.keys() - names):
            raise FormatError(f"{where}: {strange[0][:40]!r} is not taken from a node")
