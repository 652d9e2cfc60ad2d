"""Before a cloud's resources change: what is asked for, and what `apply --plan` shows."""

from __future__ import annotations

import pytest

from constellation.base.errors import UserError
from constellation.cli.output import Steps
from constellation.cli.plan_question import ask_about
from constellation.cli.run import Settings
from constellation.cluster.plan import Observed, Step, plan
from constellation.providers.protocols import InfrastructureState, Instance, Role
from constellation.providers.terraform.messages import Change
from constellation.providers.terraform.run import Plan
from tests.fakes.cloud_confs import conf

NOBODY = Settings(output="text", yes=False, folder=None)


def _ask(*changes: tuple[str, str]) -> None:
    """Ask where nobody can answer."""
    planned = Plan(changes=tuple(Change(address=a, action=w) for w, a in changes))
    with Steps() as steps:
        ask_about(planned, conf("aws"), steps, NOBODY)


@pytest.mark.parametrize(
    "changes",
    [
        (),
        # what `init` leaves behind it: nobody needs the way to a fresh node any more
        (
            ("delete", 'aws_lb_listener.outside["init"]'),
            ("delete", 'aws_lb_target_group.outside["init"]'),
            ("delete", 'aws_vpc_security_group_ingress_rule.from_outside["init"]'),
        ),
        (("delete", 'google_compute_forwarding_rule.outside["init"]'),),
        (("delete", 'azurerm_lb_rule.outside["init"]'), ("update", "azurerm_lb.outside[0]")),
        (("update", 'aws_lb_target_group.inside["api"]'),),
    ],
)
def test_what_only_closes_a_way_in_is_done_without_a_question(
    changes: tuple[tuple[str, str], ...],
) -> None:
    _ask(*changes)


@pytest.mark.parametrize(
    "change",
    [
        ("create", "aws_lb.inside"),
        ("replace", "aws_lb.inside"),
        ("create", 'aws_lb_listener.outside["init"]'),
        # a node group that was taken out of the configuration, with its machines
        ("delete", 'aws_autoscaling_group.this["worker_default"]'),
        ("delete", 'azurerm_linux_virtual_machine_scale_set.this["worker_default"]'),
        ("delete", "aws_vpc.this[0]"),
        ("forget", "aws_vpc.this[0]"),
    ],
)
def test_everything_else_is_asked_for(change: tuple[str, str]) -> None:
    with pytest.raises(UserError, match="needs an answer"):
        _ask(("delete", 'aws_lb_listener.outside["init"]'), change)


def test_resources_that_differ_are_a_step_of_the_plan_with_every_line() -> None:
    config = conf("aws")
    machines = InfrastructureState(
        uid="constell-0a1b2c",
        endpoint="a:6443",
        user_endpoint="a:6443",
        api_sans=(),
        instances=tuple(
            Instance(instance_id=n, group=n, role=Role.WORKER, address="10.0.0.1", state="running")
            for n in config.node_groups
        ),
        trust_roots=(),
    )
    seen = Observed(infrastructure=machines, has_kubeconfig=False, nodes=())
    assert Step.MACHINES not in {p.step for p in plan(config, None, seen)}
    lines = ("update aws_lb.inside", 'delete aws_autoscaling_group.this["old"]')
    differs = Observed(infrastructure=machines, has_kubeconfig=False, nodes=(), resources=lines)
    (step,) = (p for p in plan(config, None, differs) if p.step is Step.MACHINES)
    assert (step.why, step.details) == ("2 resources differ", lines)


def test_other_sources_of_artifacts_are_a_step_of_the_plan() -> None:
    same, other = (
        Observed(infrastructure=None, has_kubeconfig=False, nodes=(), sources_differ=differs)
        for differs in (False, True)
    )
    assert Step.SOURCES not in {p.step for p in plan(conf("aws"), None, same)}
    (step,) = (p for p in plan(conf("aws"), None, other) if p.step is Step.SOURCES)
    assert "from other sources" in step.why


def test_another_access_for_control_planes_is_a_step_of_the_plan() -> None:
    same, other = (
        Observed(infrastructure=None, has_kubeconfig=False, nodes=(), access_differs=differs)
        for differs in (False, True)
    )
    config = conf("openstack")
    assert Step.ACCESS not in {p.step for p in plan(config, None, same)}
    (step,) = (p for p in plan(config, None, other) if p.step is Step.ACCESS)
    assert "another credential" in step.why
