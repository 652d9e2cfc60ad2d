"""What is one cloud's components, as they are built here: Go modules, and images of their programs.

Pure: the shape of a cloud's table, and what the tables of all clouds share. A publisher's registry
gives an image another name than `reference` does; its manifest, and so its digest, stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from constellation.releases.recipes import ImageRecipe, Recipe

__all__ = ["CloudRecipe", "reference", "version_variables", "with_tools", "without_tools"]

_PREFIX: Final = "constellation.internal/cloud/"


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudRecipe:
    """A cloud's modules and images; its objects are `artifacts/cloud-PROVIDER/objects.json`."""

    provider: str
    modules: tuple[Recipe, ...]
    images: tuple[ImageRecipe, ...]

    @property
    def objects(self) -> str:
        """Give the objects' file, below the package's `artifacts` folder."""
        return f"cloud-{self.provider}/objects.json"


def reference(name: str, version: str) -> str:
    """Give the name by which objects ask for an image of ours: of no registry."""
    return f"{_PREFIX}{name}:{version}"


def version_variables(version: str) -> tuple[str, ...]:
    """Give the linker variables by which a program of Kubernetes' libraries tells its version."""
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return tuple(f"{package}.gitVersion={version}" for package in packages)


def without_tools(name: str, version: str) -> ImageRecipe:
    """Give the image of one program that needs nothing else."""
    return ImageRecipe(
        reference=reference(name, version),
        files={f"usr/local/bin/{name}": name},
        entrypoint=(name,),
        links={},
    )


def with_tools(name: str, version: str) -> ImageRecipe:
    """Give the image of a program that calls mkfs, mount and the like: those of the node's /usr.

    Its pod mounts the node's measured /usr, for reading; so the program is elsewhere.
    """
    return ImageRecipe(
        reference=reference(name, version),
        files={f"programs/{name}": name},
        entrypoint=(f"/programs/{name}",),
        links={folder: f"usr/{folder}" for folder in ("bin", "lib", "lib64", "sbin")},
    )
