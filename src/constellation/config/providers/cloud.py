"""What the blocks of all clouds share: who may reach the cluster, tags, how Terraform is run."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, Field

from constellation.config.section import Section

__all__ = ["Access", "Networks", "Tags", "Terraform"]

_MOST = 32
_DOMAIN = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))+")
_TAG_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_TAG_VALUE = re.compile(r"[A-Za-z0-9_.@ -]{0,63}")
_OURS = "constellation"


def _networks(found: tuple[str, ...]) -> tuple[str, ...]:
    if len(found) > _MOST:
        raise ValueError(f"expected at most {_MOST} networks, found {len(found)}")
    for text in found:
        try:
            ipaddress.IPv4Network(text)
        except ValueError:
            raise ValueError(f"expected IPv4 networks like 192.0.2.0/24, found {text!r}") from None
    return found


def _names(found: tuple[str, ...]) -> tuple[str, ...]:
    if len(found) > _MOST:
        raise ValueError(f"expected at most {_MOST} names, found {len(found)}")
    for name in found:
        _endpoint(name)
    return found


def _endpoint(name: str) -> str:
    if name and not _DOMAIN.fullmatch(name):
        raise ValueError(f"expected a host name like api.example.org, found {name[:80]!r}")
    return name


def _tags(found: dict[str, str]) -> dict[str, str]:
    if len(found) > _MOST:
        raise ValueError(f"expected at most {_MOST} tags, found {len(found)}")
    for key, value in found.items():
        if not _TAG_KEY.fullmatch(key) or not _TAG_VALUE.fullmatch(value):
            raise ValueError(
                f"expected letters, digits and _.- in tags, found {key[:60]!r}: {value[:60]!r}"
            )
        if key.lower().startswith(_OURS):
            raise ValueError(f"expected tags of your own, found {key[:60]!r}: {_OURS}… is ours")
    return found


Networks = Annotated[tuple[str, ...], Field(strict=False), AfterValidator(_networks)]
"""IPv4 networks in CIDR notation."""

Tags = Annotated[dict[str, str], AfterValidator(_tags)]
"""Tags (labels) that a user adds to all resources."""

_EVERYBODY = ("0.0.0.0/0",)


class Access(Section):
    """Who may reach what of the cluster from outside. Every port asks for attestation or TLS."""

    api: Networks = _EVERYBODY
    """Networks that may reach the Kubernetes API (6443). Empty: nobody."""

    init: Networks = _EVERYBODY
    """Networks that may reach a fresh node (9000): yours, for `init`. Closed once that is done."""

    recovery: Networks = _EVERYBODY
    """Networks that may bring a disk key (9999): yours, for `recover`."""

    verify: Networks = _EVERYBODY
    """Networks that may ask for evidence (30081). Empty: nobody."""

    policy: Networks = _EVERYBODY
    """Networks that may hand over a new cluster policy (30091): yours, for `upgrade`."""

    node_ports: Networks = ()
    """Networks that may reach NodePorts (30100-32767) of the nodes. Empty: nobody."""

    internal: bool = False
    """True: the load balancer has an address of the private network only."""

    custom_endpoint: Annotated[str, AfterValidator(_endpoint)] = ""
    """Host name under which users reach the API. You make its DNS record; it is put into the API
    server's certificate."""

    extra_names: Annotated[tuple[str, ...], Field(strict=False), AfterValidator(_names)] = ()
    """More host names for the API server's certificate."""


class Terraform(Section):
    """How Terraform or OpenTofu is run."""

    program: str = ""
    """Path of `terraform` or `tofu`. Empty: `terraform`, else `tofu`, from PATH. None is ever
    downloaded."""

    plugin_folder: str = ""
    """Folder with the providers' programs: none is downloaded then. Empty: as that program does."""

    backend: Annotated[str, Field(pattern=r"^([a-z][a-z0-9]{0,19})?$")] = ""
    """Where the state is kept, e.g. "s3". Empty: in constellation-terraform/terraform.tfstate."""

    backend_config: str = ""
    """File (from here) with the backend's settings, in the form that `-backend-config` takes."""
