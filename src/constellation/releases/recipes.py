"""What is built from which Go module with which flags, and which image holds which program.

Pure: a table. The modules themselves (go.mod, go.sum) are in the package's `artifacts` folder.
Flags: `go help build`; the version variables are those of each project's own makefile.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "BUILD_FLAGS",
    "CNI",
    "CONTAINERD",
    "ETCD",
    "NODE_PROGRAMS",
    "ImageRecipe",
    "Recipe",
    "image_recipes",
    "recipes",
]

# -trimpath and -buildvcs=false: the same bytes from any folder, inside a git checkout or not
BUILD_FLAGS = ("-mod=readonly", "-buildvcs=false", "-trimpath")

CONTAINERD = "v2.2.7"
CNI = "v1.9.1"
ETCD = "v3.6.8"
_KUBERNETES = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubeadm",
    "kubectl",
)
# what a node runs outside of containers; runc comes with the node image
NODE_PROGRAMS = (
    "bridge",
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "etcdctl",
    "host-local",
    "kube-proxy",
    "kubeadm",
    "kubectl",
    "kubelet",
    "loopback",
    "portmap",
    "ptp",
)
_PLUGINS = ("ipam/host-local", "main/bridge", "main/loopback", "main/ptp", "meta/portmap")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One module: its folder, the packages of its programs by artifact name, linker variables."""

    folder: str
    programs: dict[str, str]
    variables: tuple[str, ...] = ()

    @property
    def linker_flags(self) -> str:
        """Give -ldflags: no symbol table, no DWARF, the version variables."""
        return " ".join(("-s", "-w", *(f"-X {variable}" for variable in self.variables)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecipe:
    """One image: its reference, its programs (path inside to artifact name), its entry point."""

    reference: str
    files: dict[str, str]
    entrypoint: tuple[str, ...]
    links: dict[str, str]


def recipes(version: str) -> tuple[Recipe, ...]:
    """Give what is built for Kubernetes `version` ("v1.36.2"), the longest build first."""
    major, minor, _patch = version.removeprefix("v").split(".")
    containerd = "github.com/containerd/containerd/v2"
    plugins = "github.com/containernetworking/plugins"
    return (
        Recipe(
            folder=f"kubernetes-{version}",
            programs={name: f"k8s.io/kubernetes/cmd/{name}" for name in _KUBERNETES},
            variables=tuple(
                f"{package}.{variable}"
                for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
                for variable in (f"gitVersion={version}", f"gitMajor={major}", f"gitMinor={minor}")
            ),
        ),
        Recipe(folder="coredns", programs={"coredns": "github.com/coredns/coredns"}),
        Recipe(
            folder="containerd",
            programs={
                name: f"{containerd}/cmd/{name}"
                for name in ("containerd", "containerd-shim-runc-v2", "ctr")
            },
            variables=(
                f"{containerd}/version.Version={CONTAINERD}",
                f"{containerd}/version.Revision=",
            ),
        ),
        Recipe(
            folder="etcd",
            programs={"etcd": "go.etcd.io/etcd/server/v3", "etcdctl": "go.etcd.io/etcd/etcdctl/v3"},
        ),
        Recipe(
            folder="cni",
            programs={name.split("/")[1]: f"{plugins}/plugins/{name}" for name in _PLUGINS},
            variables=(f"{plugins}/pkg/utils/buildversion.BuildVersion={CNI}",),
        ),
        Recipe(folder="pause", programs={"pause": "constellation.internal/artifacts/pause"}),
    )


def image_recipes(version: str) -> tuple[ImageRecipe, ...]:
    """Give the images that kubeadm of `version` is configured to use, by the names it uses."""
    kubernetes = tuple(
        _image(f"registry.k8s.io/{name}:{version}", name) for name in _KUBERNETES[:3]
    )
    return (
        *kubernetes,
        _image("registry.k8s.io/etcd:3.6.8-0", "etcd", "etcdctl"),
        ImageRecipe(
            reference="registry.k8s.io/coredns/coredns:v1.14.2",
            files={"coredns": "coredns"},
            entrypoint=("/coredns",),
            links={},
        ),
        ImageRecipe(
            reference="registry.k8s.io/pause:3.10.2",
            files={"pause": "pause"},
            entrypoint=("/pause",),
            # services run in this image with the node's /usr mounted: its loader is found by these
            links={name: f"usr/{name}" for name in ("bin", "lib", "lib64", "sbin")},
        ),
    )


def _image(reference: str, *programs: str) -> ImageRecipe:
    return ImageRecipe(
        reference=reference,
        files={f"usr/local/bin/{name}": name for name in programs},
        entrypoint=(programs[0],),
        links={},
    )
