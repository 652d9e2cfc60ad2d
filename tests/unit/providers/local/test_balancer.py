from __future__ import annotations

import json
from pathlib import Path

from constellation.kube.units import kube_proxy_configuration
from constellation.providers.local.daemon.balancer import configuration, with_new_servers_down
from constellation.providers.local.daemon.records import CloudRecord, with_node
from constellation.providers.protocols import Group, Role


def _sections(*, api_ca: bytes = b"") -> dict[str, list[str]]:
    cloud = CloudRecord(id="mini", address="127.0.0.7", api_ca=api_ca)
    cloud, _ = with_node(cloud, Group(name="control", role=Role.CONTROL_PLANE, size=1))
    cloud, _ = with_node(cloud, Group(name="workers", role=Role.WORKER, size=1))
    text = configuration(
        cloud,
        host="constellation-mini-host",
        socket=Path("/run/x.sock"),
        state=Path("/run/x.state"),
        authority=Path("/run/ca.pem"),
    )
    sections: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith(" "):
            sections[name].append(line.strip())  # noqa: F821 - the first line is a section
        else:
            name = line
            sections[name] = []
    return sections


def test_the_api_goes_to_control_planes_only() -> None:
    servers = [x for x in _sections()["backend api"] if x.startswith("server")]
    assert servers == ["server n0 10.42.1.10:6443"]


def test_servers_that_are_asked_with_patience_are_the_same_and_a_last_resort() -> None:
    sections = _sections()
    for name in ("api", "node-ports"):
        chosen = sections[f"frontend {name}"][-2:]
        assert chosen == [
            f"use_backend {name}-patient if {{ nbsrv({name}) eq 0 }}",
            f"default_backend {name}",
        ]
        quick, patient = sections[f"backend {name}"], sections[f"backend {name}-patient"]
        assert set(quick) ^ set(patient) == {
            *(line for line in (*quick, *patient) if line.startswith("default-server ")),
            "timeout connect 5s",
            "timeout check 10s",
        }


def test_node_ports_go_to_every_node_on_the_same_port() -> None:
    servers = [x for x in _sections()["backend node-ports"] if x.startswith("server")]
    assert [x.split(" ")[2] for x in servers] == ["10.42.1.10", "10.42.2.11"]


def test_a_node_is_reached_for_init_recovery_and_verify() -> None:
    sections = _sections()
    assert "bind 127.0.0.7:20010 namespace constellation-mini-host" in sections["listen n1-9000"]
    assert "server n1 10.42.2.11:9999" in sections["listen n1-9999"]
    assert "bind 127.0.0.7:20012 namespace constellation-mini-host" in sections["listen n1-30081"]


def test_nothing_is_bound_but_the_clouds_own_addresses() -> None:
    binds = [x for lines in _sections().values() for x in lines if x.startswith("bind")]
    assert all(
        x.startswith("bind 127.0.0.7:") and x.endswith(" namespace constellation-mini-host")
        for x in binds
        if x != "bind 10.42.0.1:6443"
    )


def test_a_silent_watch_is_not_cut() -> None:
    assert "timeout server 24h" in _sections()["defaults"]


def test_a_node_port_goes_only_to_nodes_that_kube_proxy_calls_eligible() -> None:
    lines = _sections()["backend node-ports"]
    assert "option httpchk GET /healthz" in lines
    assert "http-check expect status 200" in lines
    assert any("check port 10256" in line for line in lines)
    kube_proxy = json.loads(
        kube_proxy_configuration(node_name="n", address="10.42.2.11", pod_network="10.244.0.0/16")
    )
    assert kube_proxy["healthzBindAddress"] == "10.42.2.11:10256"


def test_once_the_api_servers_authority_is_known_only_its_servers_are_ready() -> None:
    (before,) = [x for x in _sections()["backend api"] if x.startswith("default-server")]
    (after,) = [
        x for x in _sections(api_ca=b"PEM")["backend api"] if x.startswith("default-server")
    ]
    assert "check-ssl verify none" in before
    assert "check-ssl verify required ca-file /run/ca.pem" in after


_STATE = b"""1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_check_status srv_check_health
3 api 1 n0 10.42.1.10 2 15 2
4 api-patient 1 n0 10.42.1.10 2 15 2
5 node-ports 1 n0 10.42.1.10 2 15 2
6 node-ports-patient 1 n0 10.42.1.10 2 15 2
7 n0-9000 1 n0 10.42.1.10 2 1 0

"""


def test_a_machine_that_is_not_there_yet_is_not_taken_for_ready() -> None:
    cloud = CloudRecord(id="mini", address="127.0.0.7")
    cloud, _ = with_node(cloud, Group(name="control", role=Role.CONTROL_PLANE, size=1))
    assert with_new_servers_down(_STATE, cloud) == _STATE
    cloud, _ = with_node(cloud, Group(name="workers", role=Role.WORKER, size=1))
    cloud, _ = with_node(cloud, Group(name="control", role=Role.CONTROL_PLANE, size=1))
    lines = with_new_servers_down(_STATE, cloud).decode().splitlines()
    assert lines[:7] == _STATE.decode().splitlines()[:7]
    assert lines[7:] == [
        "3 api 1 n2 10.42.1.12 0 1 0",
        "4 api-patient 1 n2 10.42.1.12 0 1 0",
        "5 node-ports 1 n1 10.42.2.11 0 1 0",
        "5 node-ports 1 n2 10.42.1.12 0 1 0",
        "6 node-ports-patient 1 n1 10.42.2.11 0 1 0",
        "6 node-ports-patient 1 n2 10.42.1.12 0 1 0",
    ]


def test_a_state_that_says_nothing_or_not_in_known_columns_stays_as_it_is() -> None:
    cloud = CloudRecord(id="mini", address="127.0.0.7")
    cloud, _ = with_node(cloud, Group(name="workers", role=Role.WORKER, size=1))
    for state in (b"", b"1\n", b"1\n# another head\n5 node-ports 1\n", b"\xff\n"):
        assert with_new_servers_down(state, cloud) == state
