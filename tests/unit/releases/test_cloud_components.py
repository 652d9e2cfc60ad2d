"""A cloud's components: built to the lock's digests, so named in objects that keep the rules."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from constellation.base.digest import WrongDigest
from constellation.base.errors import FormatError, UserError
from constellation.base.progress import silent
from constellation.kube.cloud_objects import check_objects
from constellation.releases import cloud_components, source
from constellation.releases import lock as locks
from constellation.releases.cloud_components import ensure_component
from constellation.releases.clouds import CLOUDS
from constellation.releases.lock import CloudLock, LockedArtifact
from constellation.releases.store import Store
from tests.fakes.toolchain import WHEEL, install_toolchain

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.releases.cloud_components import Component
    from constellation.releases.lock import Lock

REGISTRY = "registry.example.com/team"
_REFERENCE = re.compile(r"constellation\.internal/cloud/[a-z-]+:v[0-9.]+")


@dataclass(frozen=True, kw_only=True)
class Built:
    """A cache with what the fake toolchain made of the packaged modules, and a lock for it."""

    cache: Path
    lock: Lock


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build every cloud's components once."""
    cache = tmp_path_factory.mktemp("cache")
    install_toolchain(cache)
    clouds = {}
    for provider, recipe in CLOUDS.items():
        building = source.build_cloud(
            recipe,
            modules=locks.artifacts_folder(),
            wheel=WHEEL,
            expected=None,
            store=Store(cache),
            report=silent,
        )
        clouds[provider] = CloudLock(source=asyncio.run(building), why="for a test")
    lock = dataclasses.replace(locks.load(), toolchain=WHEEL, clouds=clouds)
    return Built(cache=cache, lock=lock)


async def _ensure(built: Built, registry: str = REGISTRY, provider: str = "aws") -> Component:
    return await ensure_component(
        provider, registry=registry, cache=built.cache, report=silent, packaged=built.lock
    )


@pytest.mark.parametrize("provider", CLOUDS)
async def test_the_objects_name_the_image_of_each_archive_by_its_digest(
    built: Built, provider: str
) -> None:
    made = await _ensure(built, provider=provider)
    for image, recipe in zip(made.images, CLOUDS[provider].images, strict=True):
        with tarfile.open(image.archive) as tar:
            file = tar.extractfile("index.json")
            assert file is not None
            (entry,) = json.load(file)["manifests"]
            assert f"blobs/{entry['digest'].replace(':', '/')}" in tar.getnames()
        assert entry["annotations"]["io.containerd.image.name"] == recipe.reference
        assert image.name == recipe.reference.replace("constellation.internal/cloud", REGISTRY)
        assert image.reference == f"{image.name}@{entry['digest']}"
    used = {c["image"] for c in _containers(made.objects)}
    assert used == {image.reference for image in made.images}


async def test_the_digest_is_the_same_whatever_the_registry(built: Built) -> None:
    here, there = [await _ensure(built, r) for r in (REGISTRY, "10.0.0.1:5000")]
    for one, other in zip(here.images, there.images, strict=True):
        assert one.archive == other.archive
        assert one.reference.rpartition("@")[2] == other.reference.rpartition("@")[2]
        assert other.name.startswith("10.0.0.1:5000/")


@pytest.mark.parametrize("provider", CLOUDS)
async def test_the_objects_keep_the_rules_of_a_release(built: Built, provider: str) -> None:
    made = await _ensure(built, provider=provider)
    check_objects(made.objects)
    for pod in _pods(made.objects):
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in _containers(made.objects):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert container["resources"]["limits"].keys() == {"memory"}
        if not context.get("privileged"):
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("provider", CLOUDS)
def test_two_pods_of_one_host_network_do_not_both_lead(provider: str) -> None:
    # leaders are told apart by the host's name, which such pods share
    for item in _items(provider):
        pod = item.get("spec", {}).get("template", {}).get("spec", {})
        assert not (pod.get("hostNetwork") and item["kind"] == "Deployment"), item["metadata"]


@pytest.mark.parametrize("provider", CLOUDS)
def test_one_container_alone_is_privileged_and_reads_the_measured_programs(provider: str) -> None:
    pods = [i["spec"]["template"]["spec"] for i in _items(provider) if i["kind"] == "DaemonSet"]
    mighty = [
        (pod, container)
        for pod in pods
        for container in pod["containers"]
        if container["securityContext"].get("privileged")
    ]
    ((pod, container),) = mighty
    paths = {v["name"]: v["hostPath"]["path"] for v in pod["volumes"] if "hostPath" in v}
    mounts = {paths.get(m["name"]): m.get("readOnly") for m in container["volumeMounts"]}
    assert mounts["/usr"] is True
    # what is on a disk is the cloud's: no control plane's kernel mounts it
    found = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    workers = {"key": "node-role.kubernetes.io/control-plane", "operator": "DoesNotExist"}
    assert found == {"nodeSelectorTerms": [{"matchExpressions": [workers]}]}


async def test_the_controller_manager_of_aws_serves_nothing_and_deletes_nodes_alone(
    built: Built,
) -> None:
    made = await _ensure(built)
    name = "aws-cloud-controller-manager"
    (container,) = (c for c in _containers(made.objects) if c["name"] == name)
    assert "--secure-port=0" in container["args"]
    verbs = {
        (resource, verb)
        for item in json.loads(made.objects)["items"]
        if item["metadata"]["name"] == name
        for rule in item.get("rules", ())
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert {r for r, v in verbs if v == "delete"} == {"nodes"}


@pytest.mark.parametrize("provider", CLOUDS)
async def test_another_program_than_the_locks_is_not_kept(built: Built, provider: str) -> None:
    for program in (p for recipe in CLOUDS[provider].modules for p in recipe.programs):
        wrong = built.lock.clouds[provider].source | {
            program: LockedArtifact(sha256="0" * 64, size_bytes=1)
        }
        cloud = dataclasses.replace(built.lock.clouds[provider], source=wrong)
        lock = dataclasses.replace(built.lock, clouds={provider: cloud})
        with pytest.raises(WrongDigest, match=program):
            await _ensure(dataclasses.replace(built, lock=lock), provider=provider)


@pytest.mark.parametrize(
    "registry", ["", "Registry.example.com", "registry/", "a b", "x/../y", "r.example\n", "-x"]
)
async def test_what_is_no_registry_is_refused(built: Built, registry: str) -> None:
    with pytest.raises(UserError, match="expected a registry"):
        await _ensure(built, registry)


async def test_a_cloud_of_which_nothing_is_built_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no component of mars") as caught:
        await ensure_component("mars", registry=REGISTRY, cache=tmp_path, report=silent)
    assert caught.value.hint == f"one of {', '.join(CLOUDS)}"


def _objects(*images: str, init: tuple[str, ...] = ()) -> bytes:
    containers = {
        "containers": [{"image": image} for image in images],
        "initContainers": [{"image": image} for image in init],
    }
    items = [{"kind": "ServiceAccount"}, {"spec": {"template": {"spec": containers}}}]
    return json.dumps({"items": items}).encode()


_IMAGES = {
    name: cloud_components.ComponentImage(
        archive=locks.artifacts_folder(), name=f"r/{name}", reference=f"r/{name}@sha256:1"
    )
    for name in ("a", "b")
}


def test_each_container_gets_the_image_that_it_names() -> None:
    made = cloud_components.with_images(_objects("a", "b", "a", init=("b",)), _IMAGES)
    found = [c["image"] for c in _containers(made)]
    assert found == ["r/b@sha256:1", "r/a@sha256:1", "r/b@sha256:1", "r/a@sha256:1"]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (_objects("a", "b", "c"), "found image 'c'"),
        (_objects("a", "b", ""), "found image ''"),
        (_objects("a", "b", init=("r/a@sha256:1",)), "found image 'r/a@sha256:1'"),
        (_objects("a", "a"), "no container has image b"),
    ],
)
def test_an_image_that_is_not_built_and_one_that_is_not_used_are_refused(
    template: bytes, said: str
) -> None:
    with pytest.raises(FormatError, match=said):
        cloud_components.with_images(template, _IMAGES)


def test_the_packaged_lock_has_every_component_with_its_reason() -> None:
    packaged = locks.load()
    assert packaged.clouds.keys() == CLOUDS.keys()
    for provider, recipe in CLOUDS.items():
        assert recipe.provider == provider
        locked = packaged.clouds[provider]
        programs = [name for module in recipe.modules for name in module.programs]
        references = [image.reference for image in recipe.images]
        assert sorted(locked.source) == sorted(programs + references)
        assert locked.why
        assert all(_REFERENCE.fullmatch(reference) for reference in references)
        assert {n for image in recipe.images for n in image.files.values()} == set(programs)
        for module in recipe.modules:
            folder = locks.artifacts_folder() / module.folder
            assert (
                f"module constellation.internal/artifacts/{module.folder}\n"
                in (folder / "go.mod").read_text()
            )
            for package in module.programs.values():
                if package.startswith("constellation.internal/"):
                    assert (folder / "main.go").exists()
                else:
                    assert f'_ "{package}"' in (folder / "programs.go").read_text()


def test_a_cloud_images_version_is_that_of_a_module() -> None:
    for recipe in CLOUDS.values():
        modules = [
            (locks.artifacts_folder() / module.folder / "go.mod").read_text()
            for module in recipe.modules
            if (locks.artifacts_folder() / module.folder / "programs.go").exists()
        ]
        required = set(re.findall(r"^require \S+ (v\S+)$", "\n".join(modules), re.MULTILINE))
        for image in recipe.images:
            name, _, version = image.reference.rpartition(":")
            assert version in required or name.endswith("/csi-registrar"), image.reference


def _items(provider: str) -> list[dict[str, Any]]:
    file = locks.artifacts_folder() / CLOUDS[provider].objects
    items: list[dict[str, Any]] = json.loads(file.read_bytes())["items"]
    return items


def _pods(objects: bytes) -> list[dict[str, Any]]:
    specs = [i.get("spec", {}) for i in json.loads(objects)["items"]]
    return [spec["template"]["spec"] for spec in specs if "template" in spec]


def _containers(objects: bytes) -> list[dict[str, Any]]:
    fields = ("initContainers", "containers")
    return [c for pod in _pods(objects) for field in fields for c in pod.get(field, ())]
