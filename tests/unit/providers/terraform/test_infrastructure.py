"""What happens when Terraform's run goes well, fails half-way, is interrupted, or meets another."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import (
    Conflict,
    ConstellationError,
    FormatError,
    Unavailable,
    UserError,
)
from constellation.base.progress import Progress, silent
from constellation.cli.clouds import resource_changes
from constellation.providers.protocols import Desired, Group, Instance, Role
from constellation.providers.terraform.infrastructure import Outputs, TerraformInfrastructure
from constellation.providers.terraform.run import Plan, TerraformSettings
from tests.fakes.terraform_program import script

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

UID = "constell-0a1b2c"
NETWORK, GROUP = "aws_vpc.this[0]", 'aws_autoscaling_group.this["planes"]'
MORE = "aws_lb.more"
OUTPUTS = {
    "uid": UID,
    "endpoint": "lb.example.org:6443",
    "in_cluster_endpoint": "inside.example.org:6443",
    "api_sans": ["lb.example.org"],
    "node_cidr": "10.42.0.0/16",
    "groups": {"planes": "asg"},
    "load_balancer": "arn",
    "details": {"host": "own.example.org"},
}
DESIRED = Desired(
    groups=(Group(name="planes", role=Role.CONTROL_PLANE, size=1),),
    image_path="ami-1",
    node_document=b"{}",
    artifacts_path="",
    state_disk_bytes=0,
)


class SmallCloud:
    """A cloud that lists its machine after some looks; `left` is what it still has at the end."""

    provider = "aws"

    def __init__(self, *, lag: int = 0, left: tuple[str, ...] = (), missing: str = "") -> None:
        self.lag, self.left, self.missing, self.looks = lag, left, missing, 0
        self.wanted: list[dict[str, int]] = []
        self.no_address = 0

    def variables(self, uid: str, desired: Desired) -> Mapping[str, object]:
        return {"uid": uid, "image": desired.image_path, "initialised": desired.initialised}

    async def preflight(self, uid: str, desired: Desired) -> tuple[str, ...]:
        del desired
        if self.missing:
            raise Conflict(f"{uid}: {self.missing}")
        return ("quotas were not told",)

    async def room(self, more: Desired) -> tuple[str, ...]:
        self.wanted.append({group.name: group.size for group in more.groups})
        if self.missing:
            raise Conflict(self.missing)
        return ()

    async def instances(self, outputs: Outputs) -> tuple[Instance, ...]:
        self.looks += 1
        if self.looks <= self.lag:
            return ()
        assert outputs.groups == {"planes": "asg"}
        return (
            Instance(
                instance_id="i-1",
                group="planes",
                role=Role.CONTROL_PLANE,
                address="" if self.looks <= self.no_address else "10.42.0.4",
                state="running",
            ),
        )

    async def leftovers(self, uid: str) -> tuple[str, ...]:
        assert uid == UID
        return self.left

    async def console(self, instance_id: str) -> bytes:
        return instance_id.encode()


class Setting:
    """A workspace folder, the program beside it, and what was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder / "constellation-terraform", folder / "bin"
        self.bin.mkdir()
        self.asked: list[Plan] = []
        self.behave()

    def behave(self, **more: object) -> None:
        self.program = script(
            self.bin, **{"resources": [NETWORK, GROUP], "outputs": OUTPUTS} | more
        )

    def infrastructure(
        self,
        cloud: SmallCloud | None = None,
        *,
        uid: str = UID,
        refuse: bool = False,
        backend: str = "",
        direct: bool = False,
        listed_s: float = 60.0,
        lead_init: Callable[[Outputs, str], Awaitable[None]] | None = None,
    ) -> TerraformInfrastructure:
        def confirm(plan: Plan) -> None:
            self.asked.append(plan)
            if refuse:
                raise UserError("stopped: the answer was no")

        return TerraformInfrastructure(
            cloud or SmallCloud(),
            uid,
            folder=self.folder,
            program=str(self.program),
            settings=TerraformSettings(backend=backend),
            confirm=confirm,
            direct=direct,
            listed_s=listed_s,
            lead_init=lead_init,
        )

    def resources(self) -> list[str]:
        file = self.folder / "terraform.tfstate"
        found: list[str] = json.loads(file.read_text())["resources"] if file.exists() else []
        return found


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path)


async def test_a_cluster_is_asked_for_made_seen_and_removed(setting: Setting) -> None:
    infrastructure = setting.infrastructure()
    assert await infrastructure.observe() is None
    state = await infrastructure.apply(DESIRED, report=silent)
    assert [plan.summary() for plan in setting.asked] == ["2 to make"]
    assert state.endpoint == "inside.example.org:6443"
    assert state.user_endpoint == "lb.example.org:6443"
    # init goes to the load balancer's own name: a custom one may have no DNS record yet
    assert state.instances[0].init_endpoint == "own.example.org:9000"
    assert state.instances[0].policy_endpoint == "own.example.org:30091"
    assert await infrastructure.observe() == state

    setting.asked.clear()
    await infrastructure.apply(DESIRED, report=silent)
    assert setting.asked == []
    await infrastructure.destroy(report=silent)
    assert not setting.folder.exists()
    await infrastructure.destroy(report=silent)


async def test_init_is_led_to_the_first_control_plane_once_the_machines_are_listed(
    setting: Setting,
) -> None:
    led: list[tuple[str, str]] = []

    async def lead(outputs: Outputs, instance_id: str) -> None:
        led.append((outputs.load_balancer, instance_id))

    await setting.infrastructure(lead_init=lead).apply(DESIRED, report=silent)
    assert led == [("arn", "i-1")]


async def test_a_plan_is_shown_and_nothing_is_changed_or_asked(setting: Setting) -> None:
    with pytest.raises(Conflict, match="nothing was made"):
        await setting.infrastructure().plan(DESIRED, report=silent)
    assert not setting.folder.exists()
    await setting.infrastructure().apply(DESIRED, report=silent)
    setting.asked.clear()
    setting.behave(resources=[NETWORK])
    found = await resource_changes(
        lambda uid: setting.infrastructure(uid=uid), UID, DESIRED, report=silent
    )
    assert found == (f"delete {GROUP}",)
    assert setting.resources() == [NETWORK, GROUP]
    assert setting.asked == []
    assert not list(setting.folder.glob("*plan*"))


async def test_with_a_way_into_the_network_machines_are_reached_by_themselves(
    setting: Setting,
) -> None:
    state = await setting.infrastructure(direct=True).apply(DESIRED, report=silent)
    assert state.instances[0].verify_endpoint == "10.42.0.4:30081"


async def test_variables_go_in_as_one_file_and_the_module_beside_it(setting: Setting) -> None:
    await setting.infrastructure().apply(DESIRED, report=silent)
    written = json.loads((setting.folder / "constellation.auto.tfvars.json").read_text())
    assert written == {"uid": UID, "image": "ami-1", "initialised": False}
    assert (setting.folder / "variables.tf").exists()
    assert not (setting.folder / "backend.tf.json").exists()


async def test_a_remote_backend_stands_beside_the_module(setting: Setting) -> None:
    await setting.infrastructure(backend="s3").apply(DESIRED, report=silent)
    written = json.loads((setting.folder / "backend.tf.json").read_text())
    assert written == {"terraform": {"backend": {"s3": {}}}}


async def test_no_means_no(setting: Setting) -> None:
    with pytest.raises(UserError, match="the answer was no"):
        await setting.infrastructure(refuse=True).apply(DESIRED, report=silent)
    assert setting.resources() == []


async def test_what_the_preflight_misses_is_said_before_anything_is_made(setting: Setting) -> None:
    cloud = SmallCloud(missing="no quota")
    with pytest.raises(Conflict, match="no quota"):
        await setting.infrastructure(cloud).apply(DESIRED, report=silent)
    assert not setting.folder.exists()


async def test_room_for_what_a_later_apply_adds_is_asked_before_anything_changes(
    setting: Setting,
) -> None:
    cloud = SmallCloud()
    infrastructure = setting.infrastructure(cloud)
    await infrastructure.ask_room(DESIRED, report=silent)  # nothing was made from here
    await infrastructure.apply(DESIRED, report=silent)
    assert cloud.wanted == []  # the preflight has asked
    # another resource, but no machine: nobody is asked
    setting.behave(resources=[NETWORK, GROUP, MORE])
    await infrastructure.apply(DESIRED, report=silent)
    assert cloud.wanted == []
    setting.behave(resources=[NETWORK, GROUP])
    setting.asked.clear()
    workers = Group(name="workers", role=Role.WORKER, size=2)
    planes = replace(DESIRED.groups[0], size=3)
    larger = replace(DESIRED, groups=(planes, workers))
    cloud.missing = "quota of cores: 8 of which 8 are used, 16 more needed"
    for act in (infrastructure.apply, infrastructure.ask_room):
        with pytest.raises(Conflict, match="quota of cores"):
            await act(larger, report=silent)
    assert cloud.wanted == [{"planes": 2, "workers": 2}] * 2
    assert setting.resources() == [NETWORK, GROUP, MORE]
    assert setting.asked == []


async def test_a_first_apply_that_fails_is_rolled_back(setting: Setting) -> None:
    setting.behave(fails=GROUP, summary="creating ASG", detail="InsufficientInstanceCapacity: no")
    with pytest.raises(Unavailable) as caught:
        await setting.infrastructure().apply(DESIRED, report=silent)
    said = str(caught.value)
    assert "creating ASG: InsufficientInstanceCapacity: no" in said
    assert said.endswith("everything that was made has been removed again")
    assert "another zone" in caught.value.hint
    assert not setting.folder.exists()


async def test_a_first_apply_after_a_no_is_asked_for_and_rolled_back_like_any_first(
    setting: Setting,
) -> None:
    with pytest.raises(UserError, match="the answer was no"):
        await setting.infrastructure(refuse=True).apply(DESIRED, report=silent)
    with pytest.raises(Conflict, match="no quota"):
        await setting.infrastructure(SmallCloud(missing="no quota")).apply(DESIRED, report=silent)
    setting.behave(fails=GROUP, summary="creating ASG", detail="InsufficientInstanceCapacity: no")
    with pytest.raises(Unavailable, match="everything that was made has been removed again"):
        await setting.infrastructure().apply(DESIRED, report=silent)
    assert not setting.folder.exists()


async def test_what_a_roll_back_leaves_is_named_and_terminate_goes_on(setting: Setting) -> None:
    setting.behave(fails=GROUP, summary="creating ASG", stays=[NETWORK])
    with pytest.raises(Unavailable, match=r"left behind: aws_vpc\.this\[0\]"):
        await setting.infrastructure().apply(DESIRED, report=silent)
    assert setting.resources() == [NETWORK]
    setting.behave()
    await setting.infrastructure().destroy(report=silent)
    assert not setting.folder.exists()


async def test_a_later_apply_that_fails_takes_nothing_away(setting: Setting) -> None:
    infrastructure = setting.infrastructure()
    await infrastructure.apply(DESIRED, report=silent)
    setting.behave(resources=[NETWORK, GROUP, MORE], fails=MORE, summary="creating LB")
    with pytest.raises(Unavailable, match="creating LB"):
        await infrastructure.apply(DESIRED, report=silent)
    assert setting.resources() == [NETWORK, GROUP]


async def test_two_runs_at_once_are_kept_apart_by_the_lock(setting: Setting) -> None:
    await setting.infrastructure().apply(DESIRED, report=silent)
    (setting.folder / ".terraform.tfstate.lock.info").write_text("held")
    with pytest.raises(Conflict, match="acquiring the state lock") as caught:
        await setting.infrastructure().apply(DESIRED, report=silent)
    assert "force-unlock" in caught.value.hint


async def test_a_state_of_a_newer_version_is_not_touched(setting: Setting) -> None:
    await setting.infrastructure().apply(DESIRED, report=silent)
    file = setting.folder / "terraform.tfstate"
    newer = {**json.loads(file.read_text()), "version": 5}
    file.write_text(json.dumps(newer))
    infrastructure = setting.infrastructure()
    for act in (
        infrastructure.apply(DESIRED, report=silent),
        infrastructure.destroy(report=silent),
    ):
        with pytest.raises(Conflict) as caught:
            await act
        assert "nothing was changed" in caught.value.hint
    assert json.loads(file.read_text()) == newer


async def test_expired_credentials_say_to_log_in_again(setting: Setting) -> None:
    await setting.infrastructure().apply(DESIRED, report=silent)
    detail = "api error ExpiredToken: The security token included in the request is expired"
    setting.behave(resources=[NETWORK, GROUP, MORE], fails=MORE, summary="x", detail=detail)
    with pytest.raises(Unavailable, match="ExpiredToken") as caught:
        await setting.infrastructure().apply(DESIRED, report=silent)
    assert "log in to the cloud again" in caught.value.hint


async def test_an_interrupted_apply_writes_its_state_and_goes_on(setting: Setting) -> None:
    setting.behave(hangs=NETWORK)
    began = asyncio.Event()

    def watch(progress: Progress) -> None:
        if "making aws_vpc" in progress.detail:
            began.set()

    task = asyncio.create_task(setting.infrastructure().apply(DESIRED, report=watch))
    async with asyncio.timeout(60):
        await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert setting.resources() == [NETWORK]
    assert not (setting.folder / ".terraform.tfstate.lock.info").exists()
    setting.behave()
    await setting.infrastructure().apply(DESIRED, report=silent)
    assert setting.resources() == [NETWORK, GROUP]


async def test_machines_that_the_cloud_lists_late_are_waited_for(setting: Setting) -> None:
    cloud = SmallCloud(lag=1)
    state = await setting.infrastructure(cloud).apply(DESIRED, report=silent)
    assert (len(state.instances), cloud.looks) == (1, 2)
    late = setting.infrastructure(SmallCloud(lag=100), listed_s=0.0)
    with pytest.raises(Unavailable, match=r"planes \(0 of 1\)"):
        await late.apply(DESIRED, report=silent)


async def test_a_machine_that_is_listed_before_its_address_is_waited_for(
    setting: Setting,
) -> None:
    cloud = SmallCloud()
    cloud.no_address = 1
    state = await setting.infrastructure(cloud).apply(DESIRED, report=silent)
    assert (cloud.looks, state.instances[0].address) == (2, "10.42.0.4")
    cloud.no_address = 9
    seen = await setting.infrastructure(cloud, direct=True).observe()
    assert seen is not None
    # no host: an endpoint of the port alone would be this very machine's
    assert [i.verify_endpoint for i in seen.instances] == [""]


async def test_what_is_left_after_a_removal_is_named(setting: Setting) -> None:
    infrastructure = setting.infrastructure(SmallCloud(left=("vol-1",)))
    await infrastructure.apply(DESIRED, report=silent)
    with pytest.raises(Unavailable, match="left of constell-0a1b2c: vol-1"):
        await infrastructure.destroy(report=silent)
    await setting.infrastructure().destroy(report=silent)
    assert not setting.folder.exists()


async def test_the_folder_of_another_cluster_is_not_taken(setting: Setting) -> None:
    await setting.infrastructure().apply(DESIRED, report=silent)
    other = setting.infrastructure(uid="other-0a1b2c")
    assert await other.observe() is None
    with pytest.raises(Conflict, match="has the state of constell-0a1b2c"):
        await other.apply(DESIRED, report=silent)
    await other.destroy(report=silent)
    assert setting.resources() == [NETWORK, GROUP]


@pytest.mark.parametrize(
    ("behave", "kind", "words"),
    [
        ({"version": "1.5.7"}, UserError, "has version 1.5, expected 1.6 or newer"),
        ({"version": "x"}, ConstellationError, "no terraform_version"),
        ({"no_registry": True}, Unavailable, "Failed to query available provider"),
        ({"outputs": OUTPUTS | {"uid": "other-0a1b2c"}}, Conflict, "the state is of other-0a1b2c"),
        ({"outputs": {}}, ConstellationError, "outputs of the module"),
        ({"outputs": OUTPUTS | {"endpoint": "lb.example.org"}}, FormatError, "no host:port"),
        ({"outputs": OUTPUTS | {"endpoint": "x\nusers: []:6443"}}, FormatError, "no host:port"),
        ({"outputs": OUTPUTS | {"in_cluster_endpoint": ":6443"}}, FormatError, "no host:port"),
        ({"outputs": OUTPUTS | {"api_sans": ["*.example.org"]}}, FormatError, "is no host"),
        ({"outputs": OUTPUTS | {"details": {"host": "a/b"}}}, FormatError, "is no host"),
    ],
)
async def test_what_does_not_fit_is_refused(
    setting: Setting, behave: dict[str, object], kind: type[Exception], words: str
) -> None:
    setting.behave(**behave)
    with pytest.raises(kind, match=words):
        await setting.infrastructure().apply(DESIRED, report=silent)


async def test_no_program_is_said_and_none_is_downloaded(setting: Setting) -> None:
    setting.program = setting.bin / "absent"
    with pytest.raises(UserError, match="no program that can be run"):
        await setting.infrastructure().apply(DESIRED, report=silent)
