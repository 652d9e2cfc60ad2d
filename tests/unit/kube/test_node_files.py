"""containerd, CNI, kube-proxy, CoreDNS and kubelet's kubeconfig: what is written for a node."""

from __future__ import annotations

import base64
import json
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.base.errors import FormatError
from constellation.kube import cni, containerd, units
from constellation.kube.kubeconfigs import kubelet_kubeconfig
from constellation.kube.membership import NodeRole
from constellation.kube.node_record import NodeRecord, dump_node_record, load_node_record
from constellation.kube.objects import cluster_dns_address, first_objects

RECORD = NodeRecord(
    name="worker-default-0",
    instance_id="i-1",
    role=NodeRole.WORKER,
    group="worker_default",
    address="10.42.2.10",
    mesh_address="10.43.0.2",
    pod_cidr="10.244.1.0/24",
    pod_network="10.244.0.0/16",
    mesh_cidr="10.43.0.0/16",
    service_cidr="10.96.0.0/12",
    cluster_id=bytes(32),
    disk_uuid=bytes(16),
    endpoint="10.42.0.1:6443",
    kubernetes_version="v1.36.2",
    artifact_list=b"{}",
    time=1,
)


@pytest.mark.parametrize("systemd", [True, False])
def test_containerd_uses_the_pinned_pause_and_our_cni_alone(systemd: bool) -> None:
    text = containerd.configuration(systemd_cgroups=systemd, cni_bin="/bin-x", cni_config="/conf-x")
    plugins = tomllib.loads(text.decode())["plugins"]
    runtime = plugins["io.containerd.cri.v1.runtime"]
    assert plugins["io.containerd.cri.v1.images"]["pinned_images"] == {
        "sandbox": "registry.k8s.io/pause:3.10.2"
    }
    assert runtime["cni"] == {"bin_dirs": ["/bin-x"], "conf_dir": "/conf-x", "max_conf_num": 1}
    runc = runtime["containerd"]["runtimes"]["runc"]
    assert runc["options"] == {"SystemdCgroup": systemd}


def test_every_registry_is_asked_through_the_mirror() -> None:
    hosts = tomllib.loads(containerd.hosts("http://169.254.169.254:5000").decode())
    assert list(hosts["host"]) == ["http://169.254.169.254:5000"]


def test_content_is_bound_and_only_its_databases_are_copied() -> None:
    plan = containerd.content_plan(["2", "1"], ["ab"])
    assert all(name.endswith(".db") for name in plan.copy)
    assert plan.bind == (
        f"{containerd.SNAPSHOTS}/1",
        f"{containerd.SNAPSHOTS}/2",
        f"{containerd.BLOBS}/ab",
    )


def test_pods_get_addresses_of_their_nodes_block_only() -> None:
    conflist = json.loads(cni.configuration(pod_cidr="10.244.1.0/24", mtu=1400))
    ptp, portmap = conflist["plugins"]
    assert (ptp["type"], portmap["type"]) == ("ptp", "portmap")
    assert ptp["ipam"]["ranges"] == [[{"subnet": "10.244.1.0/24"}]]
    assert ptp["ipMasq"] is False


def test_kube_proxy_uses_nftables_and_kubelets_certificate() -> None:
    found = json.loads(
        units.kube_proxy_configuration(
            node_name="a", address="10.42.2.10", pod_network="10.244.0.0/16"
        )
    )
    assert found["mode"] == "nftables"
    assert found["clientConnection"] == {"kubeconfig": "/etc/kubernetes/kubelet.conf"}
    assert found["conntrack"] == {"maxPerCore": 0, "min": 0}


def test_units_never_give_up_never_dump_memory_and_are_never_enabled() -> None:
    for name, text in units.units().items():
        assert b"LimitCORE=0" in text, name
        assert b"StartLimitIntervalSec=0" in text, name
        assert b"[Install]" not in text, name


def test_the_cluster_dns_has_the_tenth_service_address() -> None:
    assert cluster_dns_address("10.96.0.0/12") == "10.96.0.10"
    items = json.loads(first_objects(service_cidr="10.96.0.0/12", kubernetes="v1.36.2"))["items"]
    (service,) = [i for i in items if i["kind"] == "Service"]
    assert service["spec"]["clusterIP"] == "10.96.0.10"


def test_kube_proxys_role_goes_to_nodes_and_nobody_else() -> None:
    items = json.loads(first_objects(service_cidr="10.96.0.0/12", kubernetes="v1.36.2"))["items"]
    (binding,) = [i for i in items if i.get("roleRef", {}).get("name") == "system:node-proxier"]
    assert [(s["kind"], s["name"]) for s in binding["subjects"]] == [("Group", "system:nodes")]


def test_kubelets_kubeconfig_names_the_file_that_kubelet_renews() -> None:
    found = json.loads(
        kubelet_kubeconfig(node_name="a", endpoint="10.42.0.1:6443", cluster_ca=b"PEM")
    )
    (cluster,), (user,) = found["clusters"], found["users"]
    assert cluster["cluster"]["server"] == "https://10.42.0.1:6443"
    assert base64.b64decode(cluster["cluster"]["certificate-authority-data"]) == b"PEM"
    assert user["name"] == "system:node:a"
    assert user["user"]["client-certificate"].endswith("kubelet-client-current.pem")


def test_a_node_record_reads_back_as_it_was_written() -> None:
    assert load_node_record(dump_node_record(RECORD)) == RECORD


@given(st.binary(max_size=300))
def test_junk_is_no_node_record(data: bytes) -> None:
    with pytest.raises(FormatError):
        load_node_record(data)
