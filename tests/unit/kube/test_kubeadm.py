"""What kubeadm, kubelet and the API server are told, rule by rule (design, section 10)."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from constellation.kube import kubeadm
from constellation.providers.local.daemon import balancer
from constellation.providers.local.daemon.records import CloudRecord
from constellation.providers.select import balancer_notices_s
from constellation.services.bootstrapper.kubernetes import shutdown_delay_s

CLUSTER = kubeadm.ClusterSettings(
    name="mini",
    kubernetes_version="v1.36.2",
    endpoint="10.42.0.1:6443",
    api_sans=("127.0.0.1", "10.42.0.1"),
    service_cidr="10.96.0.0/12",
    shutdown_delay_s=shutdown_delay_s("local"),
)


def node(*, cgroup_version: int = 1) -> kubeadm.NodeSettings:
    return kubeadm.NodeSettings(
        name="control-plane-0",
        address="10.42.1.10",
        cgroup_version=cgroup_version,
        systemd_cgroups=cgroup_version == 2,
        cluster_dns="10.96.0.10",
        resolv_conf="/etc/resolv.conf",
    )


def documents(text: bytes) -> dict[str, dict[str, Any]]:
    found = [json.loads(part) for part in text.split(b"\n---\n")]
    return {d["kind"]: d for d in found}


def arguments(component: dict[str, Any]) -> dict[str, str]:
    return {a["name"]: a["value"] for a in component["extraArgs"]}


def test_kubelet_is_told_the_nodes_place_where_there_is_one() -> None:
    here = documents(kubeadm.init_configuration(CLUSTER, node()))["InitConfiguration"]
    assert arguments_of(here) == {"node-ip": "10.42.1.10"}
    placed = dataclasses.replace(
        node(), provider_id="aws:///a/i-1", labels={"b.example/zone": "a", "a.example/type": "m6a"}
    )
    for document in (
        documents(kubeadm.init_configuration(CLUSTER, placed))["InitConfiguration"],
        documents(kubeadm.join_configuration(placed, discovery_file="/d", control_plane=False))[
            "JoinConfiguration"
        ],
    ):
        assert arguments_of(document) == {
            "node-ip": "10.42.1.10",
            "provider-id": "aws:///a/i-1",
            "node-labels": "a.example/type=m6a,b.example/zone=a",
        }


def arguments_of(document: dict[str, Any]) -> dict[str, str]:
    given = document["nodeRegistration"]["kubeletExtraArgs"]
    return {a["name"]: a["value"] for a in given}


def test_the_api_server_takes_no_bootstrap_token_and_checks_kubelets() -> None:
    cluster = documents(kubeadm.init_configuration(CLUSTER, node()))["ClusterConfiguration"]
    found = arguments(cluster["apiServer"])
    assert found["enable-bootstrap-token-auth"] == "false"
    assert found["kubelet-certificate-authority"] == "/etc/kubernetes/pki/ca.crt"
    assert found["service-node-port-range"] == "30100-32767"
    assert set(found["enable-admission-plugins"].split(",")) == {
        "NodeRestriction",
        "DenyServiceExternalIPs",
    }
    assert cluster["apiServer"]["certSANs"] == ["127.0.0.1", "10.42.0.1"]


def test_admission_alone_gives_pod_cidrs_and_we_bring_dns_and_proxy() -> None:
    cluster = documents(kubeadm.init_configuration(CLUSTER, node()))["ClusterConfiguration"]
    assert "podSubnet" not in cluster["networking"]
    assert cluster["dns"] == {"disabled": True}
    assert cluster["proxy"] == {"disabled": True}
    assert arguments(cluster["controllerManager"])["cluster-signing-duration"] == "168h0m0s"


def test_kubelet_serves_with_a_certificate_of_the_cluster() -> None:
    kubelet = documents(kubeadm.init_configuration(CLUSTER, node()))["KubeletConfiguration"]
    assert kubelet["serverTLSBootstrap"] is False
    assert kubelet["tlsCertFile"].endswith("/serving.crt")
    assert kubelet["rotateCertificates"] is True
    assert kubelet["failSwapOn"] is False


def test_kubelets_whole_configuration_is_the_images() -> None:
    ((name, patch),) = kubeadm.kubelet_patch(node()).items()
    assert name == "kubeletconfiguration+json.json"  # target and type, as kubeadm reads names
    own = kubeadm.kubelet_configuration(node())
    assert json.loads(patch) == [{"op": "replace", "path": "", "value": own}]
    # what kubeadm would have filled in
    assert own["authentication"]["anonymous"] == {"enabled": False}
    assert own["authentication"]["x509"] == {"clientCAFile": "/etc/kubernetes/pki/ca.crt"}
    assert own["authorization"] == {"mode": "Webhook"}
    assert own["staticPodPath"] == "/etc/kubernetes/manifests"
    assert own["readOnlyPort"] == 0
    assert (own["healthzBindAddress"], own["healthzPort"]) == ("127.0.0.1", 10248)


def test_cgroup_version_1_is_accepted_only_where_it_is() -> None:
    on_v1 = kubeadm.kubelet_configuration(node(cgroup_version=1))
    on_v2 = kubeadm.kubelet_configuration(node(cgroup_version=2))
    assert (on_v1["failCgroupV1"], on_v1["cgroupDriver"]) == (False, "cgroupfs")
    assert "failCgroupV1" not in on_v2
    assert on_v2["cgroupDriver"] == "systemd"


def test_only_named_preflight_errors_are_ignored() -> None:
    init = documents(kubeadm.init_configuration(CLUSTER, node()))["InitConfiguration"]
    ignored = init["nodeRegistration"]["ignorePreflightErrors"]
    assert "all" not in ignored
    assert ignored == list(kubeadm.IGNORED_PREFLIGHT_ERRORS)


def test_kubeadm_pulls_no_image() -> None:
    for control_plane in (True, False):
        text = kubeadm.join_configuration(node(), discovery_file="/d", control_plane=control_plane)
        for found in (documents(text), documents(kubeadm.init_configuration(CLUSTER, node()))):
            registration = next(d for d in found.values() if "nodeRegistration" in d)
            assert registration["nodeRegistration"]["imagePullPolicy"] == "Never"


def test_secrets_are_never_stored_in_plain_text() -> None:
    (rule,) = json.loads(kubeadm.encryption_configuration())["resources"]
    assert rule["resources"] == ["secrets"]
    (provider,) = rule["providers"]
    assert provider["kms"]["apiVersion"] == "v2"
    assert provider["kms"]["endpoint"] == "unix:///run/constellation/kms/kms.sock"


def test_pods_of_users_keep_to_the_baseline() -> None:
    (plugin,) = json.loads(kubeadm.admission_configuration())["plugins"]
    assert plugin["configuration"]["defaults"]["enforce"] == "baseline"
    assert plugin["configuration"]["exemptions"]["namespaces"] == ["kube-system"]


def test_a_joining_node_discovers_by_file_and_never_by_token() -> None:
    found = documents(
        kubeadm.join_configuration(node(), discovery_file="/etc/x.conf", control_plane=False)
    )
    assert set(found) == {"JoinConfiguration"}
    join = found["JoinConfiguration"]
    assert join["discovery"] == {"file": {"kubeConfigPath": "/etc/x.conf"}}
    assert "controlPlane" not in join


def test_a_joining_control_plane_advertises_its_own_address() -> None:
    text = kubeadm.join_configuration(node(), discovery_file="/etc/x.conf", control_plane=True)
    endpoint = documents(text)["JoinConfiguration"]["controlPlane"]["localAPIEndpoint"]
    assert endpoint == {"advertiseAddress": "10.42.1.10", "bindPort": 6443}


def test_an_api_server_that_ends_is_seen_by_the_load_balancer_before_it_stops_serving() -> None:
    cluster = documents(kubeadm.init_configuration(CLUSTER, node()))["ClusterConfiguration"]
    found = arguments(cluster["apiServer"])
    assert found["shutdown-send-retry-after"] == "false"
    assert found["shutdown-watch-termination-grace-period"] == "10s"
    assert 0 < float(found["goaway-chance"]) <= 0.02
    delay_s = int(found["shutdown-delay-duration"].removesuffix("s"))
    shown = balancer.configuration(
        CloudRecord(id="a", address="127.0.0.1"),
        host="n",
        socket=Path(),
        state=Path(),
        authority=Path(),
    )
    # without what is for a time in which no server is quick
    sections = re.split(r"(?<=\n)(?=\S)", shown)
    quick = "".join(text for text in sections if not re.match(r"backend \S+-patient\n", text))
    (timeout_s,) = re.findall(r"timeout check (\d+)s\n", quick)
    checks = re.findall(r"inter (\d+m?s) fastinter (\d+)ms fall (\d+) rise 1\n", quick)
    assert len(checks) == 2
    for every, again_ms, fall in checks:
        every_ms = int(every.removesuffix("ms")) if every.endswith("ms") else 1000 * int(every[:-1])
        last = every_ms + int(fall) * 1000 * int(timeout_s) + (int(fall) - 1) * int(again_ms)
        assert last <= 1000 * balancer_notices_s("local")
    assert delay_s >= 2 * balancer_notices_s("local")


def test_each_run_of_kubeadm_is_given_the_patches_again() -> None:
    init = documents(kubeadm.init_configuration(CLUSTER, node()))["InitConfiguration"]
    join = documents(kubeadm.join_configuration(node(), discovery_file="/d", control_plane=True))[
        "JoinConfiguration"
    ]
    upgrade = documents(kubeadm.upgrade_configuration("v1.36.2", etcd_upgrade=False))
    folder = {"directory": "/etc/kubernetes/constellation/patches"}
    assert init["patches"] == join["patches"] == folder
    assert upgrade["UpgradeConfiguration"]["node"] == {"etcdUpgrade": False, "patches": folder}
    worker = documents(kubeadm.join_configuration(node(), discovery_file="/d", control_plane=False))
    assert worker["JoinConfiguration"]["patches"] == folder
    (patch,) = kubeadm.patches(shutdown_delay_s=5).values()
    assert json.loads(patch)["spec"]["terminationGracePeriodSeconds"] > 65


def test_where_balancers_notice_late_an_api_server_serves_longer() -> None:
    for provider in ("local", "aws", "azure", "gcp", "openstack"):
        assert shutdown_delay_s(provider) > 2 * balancer_notices_s(provider)
    assert balancer_notices_s("aws") >= 2 * 10, "infra/: two checks, 10 s apart"


def test_kubelet_leaves_a_slow_api_server_as_much_time_as_init_waits() -> None:
    init = documents(kubeadm.init_configuration(CLUSTER, node()))["InitConfiguration"]
    join = documents(kubeadm.join_configuration(node(), discovery_file="/d", control_plane=True))[
        "JoinConfiguration"
    ]
    upgrade = documents(kubeadm.upgrade_configuration("v1.36.2", etcd_upgrade=True))
    expected = {"controlPlaneComponentHealthCheck": "600s"}
    assert init["timeouts"] == join["timeouts"] == expected
    assert upgrade["UpgradeConfiguration"]["timeouts"] == expected
    assert kubeadm.API_START_S == 600, "what wait_for_api waits"
