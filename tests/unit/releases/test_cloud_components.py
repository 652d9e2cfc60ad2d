"""A cloud's component: built to the lock's digest, and so named in objects that keep the rules."""

from __future__ import annotations

import dataclasses
import json
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from constellation.base.digest import WrongDigest
from constellation.base.errors import UserError
from constellation.base.progress import silent
from constellation.kube.cloud_objects import check_objects
from constellation.releases import lock as locks
from constellation.releases import source
from constellation.releases.cloud_components import ensure_component
from constellation.releases.lock import CloudLock, LockedArtifact
from constellation.releases.recipes import CLOUDS
from constellation.releases.store import Store
from tests.fakes.toolchain import WHEEL, install_toolchain

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.releases.cloud_components import Component
    from constellation.releases.lock import Lock

REGISTRY = "registry.example.com/team"
_RECIPE = CLOUDS["aws"]
(_PROGRAM,) = _RECIPE.module.programs


@pytest.fixture
async def packaged(tmp_path: Path) -> Lock:
    """Give a lock for what the fake toolchain makes of the packaged module."""
    install_toolchain(tmp_path)
    made = await source.build_cloud(
        _RECIPE,
        modules=locks.artifacts_folder(),
        wheel=WHEEL,
        expected=None,
        store=Store(tmp_path),
        report=silent,
    )
    cloud = CloudLock(source=made, why="for a test")
    return dataclasses.replace(locks.load(), toolchain=WHEEL, clouds={"aws": cloud})


async def _ensure(cache: Path, packaged: Lock, registry: str = REGISTRY) -> Component:
    return await ensure_component(
        "aws", registry=registry, cache=cache, report=silent, packaged=packaged
    )


async def test_the_objects_name_the_image_of_the_archive_by_its_digest(
    tmp_path: Path, packaged: Lock
) -> None:
    made = await _ensure(tmp_path, packaged)
    with tarfile.open(made.archive) as tar:
        file = tar.extractfile("index.json")
        assert file is not None
        (entry,) = json.load(file)["manifests"]
        assert f"blobs/{entry['digest'].replace(':', '/')}" in tar.getnames()
    assert made.name == f"{REGISTRY}/{_PROGRAM}:v1.36.2"
    assert made.reference == f"{made.name}@{entry['digest']}"
    assert {c["image"] for c in _containers(made.objects)} == {made.reference}


async def test_the_digest_is_the_same_whatever_the_registry(tmp_path: Path, packaged: Lock) -> None:
    here, there = [await _ensure(tmp_path, packaged, r) for r in (REGISTRY, "10.0.0.1:5000")]
    assert here.archive == there.archive
    assert here.reference.rpartition("@")[2] == there.reference.rpartition("@")[2]
    assert there.name.startswith("10.0.0.1:5000/")


async def test_the_objects_keep_the_rules_of_a_release(tmp_path: Path, packaged: Lock) -> None:
    made = await _ensure(tmp_path, packaged)
    check_objects(made.objects)
    (container,) = _containers(made.objects)
    context = container["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"].keys() == {"memory"}
    assert "--secure-port=0" in container["args"]
    verbs = {
        (resource, verb)
        for item in json.loads(made.objects)["items"]
        for rule in item.get("rules", ())
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert {r for r, v in verbs if v == "delete"} == {"nodes"}


async def test_another_program_than_the_locks_is_not_kept(tmp_path: Path, packaged: Lock) -> None:
    wrong = packaged.clouds["aws"].source | {
        _PROGRAM: LockedArtifact(sha256="0" * 64, size_bytes=1)
    }
    cloud = dataclasses.replace(packaged.clouds["aws"], source=wrong)
    with pytest.raises(WrongDigest, match=_PROGRAM):
        await _ensure(tmp_path, dataclasses.replace(packaged, clouds={"aws": cloud}))


@pytest.mark.parametrize(
    "registry", ["", "Registry.example.com", "registry/", "a b", "x/../y", "r.example\n", "-x"]
)
async def test_what_is_no_registry_is_refused(
    tmp_path: Path, packaged: Lock, registry: str
) -> None:
    with pytest.raises(UserError, match="expected a registry"):
        await _ensure(tmp_path, packaged, registry)


async def test_a_cloud_of_which_nothing_is_built_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no component of openstack") as caught:
        await ensure_component("openstack", registry=REGISTRY, cache=tmp_path, report=silent)
    assert caught.value.hint == "one of aws"


def test_the_packaged_lock_has_every_component_with_its_reason() -> None:
    packaged = locks.load()
    assert packaged.clouds.keys() == CLOUDS.keys()
    for provider, recipe in CLOUDS.items():
        locked = packaged.clouds[provider]
        assert locked.source.keys() == {*recipe.module.programs, recipe.image.reference}
        assert locked.why
        folder = locks.artifacts_folder() / recipe.module.folder
        module = (folder / "go.mod").read_text()
        assert f"module constellation.internal/artifacts/{recipe.module.folder}\n" in module
        assert f"require k8s.io/cloud-provider-{provider} {recipe.version}\n" in module
        (package,) = recipe.module.programs.values()
        assert f'_ "{package}"' in (folder / "programs.go").read_text()


def _containers(objects: bytes) -> list[dict[str, Any]]:
    pods = [i["spec"]["template"]["spec"] for i in json.loads(objects)["items"] if "spec" in i]
    return [container for pod in pods for container in pod["containers"]]
