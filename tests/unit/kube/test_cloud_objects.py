"""What a release may bring of a cloud's components: each rule has an object that it refuses."""

from __future__ import annotations

import contextlib
import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.base.errors import FormatError, Rejected
from constellation.kube.cloud_objects import MAX_BYTES, check_objects
from tests.fakes.cloud_objects import IMAGE, dump, objects

if TYPE_CHECKING:
    from collections.abc import Callable


def findings(items: list[dict[str, Any]]) -> tuple[str, ...]:
    with pytest.raises(Rejected) as caught:
        check_objects(dump(items))
    return caught.value.findings


def test_components_that_keep_the_rules_are_taken() -> None:
    check_objects(dump(objects()))


@pytest.mark.parametrize("path", ["/usr", "/usr/sbin", "/etc/ssl/certs"])
def test_the_measured_images_programs_and_authorities_may_be_read(path: str) -> None:
    items = objects()
    _host(path, readOnly=True)(items)
    check_objects(dump(items))


@pytest.mark.parametrize(
    "name",
    ["cloud-controller-manager", "csi-azuredisk-controller-sa", "ebs-csi-node", "cinder-csi-node"],
)
def test_accounts_may_be_called_as_the_clouds_projects_call_theirs(name: str) -> None:
    items = objects()
    items[0]["metadata"]["name"] = name
    items[2]["subjects"][0]["name"] = name
    _pod(serviceAccountName=name)(items)
    check_objects(dump(items))


@pytest.mark.parametrize(
    "annotations", [None, {}, {"a": "b"}, {"storageclass.kubernetes.io/is-default-class": "false"}]
)
def test_a_class_that_is_asked_for_is_taken(annotations: object) -> None:
    items = objects()
    _storage_class(annotations)(items)
    check_objects(dump(items))
    _storage_class([1])(items)
    with pytest.raises(FormatError, match="annotations is no object"):
        check_objects(dump(items))


def test_workloads_may_be_read_and_configuration_mounted() -> None:
    items = objects()
    _role(resources=["pods", "configmaps", "namespaces"], verbs=["get", "list", "watch"])(items)
    _pod(volumes=[{"name": "x", "configMap": {"name": "x"}}])(items)
    field = {"name": "x", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    _container(env=[field, {"name": "y", "value": "z"}])(items)
    check_objects(dump(items))


@pytest.mark.parametrize(
    "image",
    [
        "registry.k8s.io/csi:v1",
        "registry.k8s.io/csi",
        "csi@sha256:" + "a" * 64,  # of which registry?
        "registry.k8s.io/csi@sha256:" + "a" * 63,
        "registry.k8s.io/csi@sha256:" + "A" * 64,
        "registry.k8s.io/csi@sha512:" + "a" * 128,
        IMAGE + "\n",
        "",
    ],
)
@pytest.mark.parametrize("where", ["containers", "initContainers"])
def test_an_image_without_its_digest_is_refused(image: str, where: str) -> None:
    items = objects()
    items[-1]["spec"]["template"]["spec"].setdefault(where, [{}])[0]["image"] = image
    assert "expected NAME@sha256:DIGEST" in findings(items)[0]


def _role(**rule: list[str]) -> Callable[[list[dict[str, Any]]], None]:
    usual = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}

    def change(items: list[dict[str, Any]]) -> None:
        next(i for i in items if i["kind"] == "ClusterRole")["rules"].append(usual | rule)

    return change


def _pod(**changes: Any) -> Callable[[list[dict[str, Any]]], None]:
    def change(items: list[dict[str, Any]]) -> None:
        items[-1]["spec"]["template"]["spec"] |= changes

    return change


def _container(**changes: Any) -> Callable[[list[dict[str, Any]]], None]:
    def change(items: list[dict[str, Any]]) -> None:
        items[-1]["spec"]["template"]["spec"]["containers"][0] |= changes

    return change


def _binding(**changes: Any) -> Callable[[list[dict[str, Any]]], None]:
    def change(items: list[dict[str, Any]]) -> None:
        next(i for i in items if i["kind"] == "ClusterRoleBinding").update(changes)

    return change


def _more(**item: Any) -> Callable[[list[dict[str, Any]]], None]:
    return lambda items: items.append(item)


def _storage_class(annotations: object) -> Callable[[list[dict[str, Any]]], None]:
    return _more(
        apiVersion="storage.k8s.io/v1",
        kind="StorageClass",
        metadata={"name": "cloud-disk", "annotations": annotations},
        provisioner="csi.example.com",
    )


def _host(path: str, **mount: Any) -> Callable[[list[dict[str, Any]]], None]:
    def change(items: list[dict[str, Any]]) -> None:
        _pod(volumes=[{"name": "x", "hostPath": {"path": path}}])(items)
        mounts = [{"name": "x", "mountPath": "/x", "readOnly": True}, {"name": "x"} | mount]
        items[-1]["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = mounts

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_role(verbs=["*"]), "verbs has *"),
        (_role(verbs=["escalate"]), "verbs has escalate"),
        (_role(verbs=["impersonate"]), "verbs has impersonate"),
        (_role(resources=["*"]), "resources has *"),
        (_role(resources=["secrets"]), "resources has secrets"),
        (_role(resources=["pods/exec"]), "resources has pods/exec"),
        (_role(resources=["nodes/proxy"]), "resources has nodes/proxy"),
        # each reaches what the plain word of it is refused for
        (_role(resources=["*/token"], verbs=["create"]), "resources has */token"),
        (_role(resources=["*/proxy"], verbs=["create"]), "resources has */proxy"),
        (_role(resources=["pods/ephemeralcontainers"], verbs=["patch"]), "resources has pods/eph"),
        (_role(resources=["pods/proxy"]), "resources has pods/proxy"),
        (_role(resources=["pods/portforward"]), "resources has pods/portforward"),
        (_role(verbs=["impersonate:user-info"]), "verbs has impersonate:user-info"),
        (_role(verbs=["approve"]), "verbs has approve"),
        (_role(resources=["pods"], verbs=["create"]), "writes pods"),
        (_role(resources=["daemonsets"], apiGroups=["apps"], verbs=["patch"]), "writes daemonsets"),
        (_role(resources=["jobs"], apiGroups=["batch"], verbs=["update"]), "writes jobs"),
        (_role(resources=["configmaps"], verbs=["get", "update"]), "writes configmaps"),
        (_role(resources=["serviceaccounts"], verbs=["create"]), "writes serviceaccounts"),
        (_role(resources=["namespaces"], verbs=["patch"]), "writes namespaces"),
        (_role(apiGroups=["apiregistration.k8s.io"]), "apiGroups has apiregistration"),
        (_role(apiGroups=["constellation.internal"]), "apiGroups has constellation.internal"),
        (_role(apiGroups=["*"]), "apiGroups has *"),
        (_role(apiGroups=["rbac.authorization.k8s.io"]), "apiGroups has rbac"),
        (_role(nonResourceURLs=["/metrics"]), "URLs that are no resources"),
        (
            _more(
                apiVersion="rbac.authorization.k8s.io/v1",
                kind="ClusterRole",
                metadata={
                    "name": "more",
                    "labels": {"rbac.authorization.k8s.io/aggregate-to-edit": "true"},
                },
                rules=[],
            ),
            "aggregate-to-edit: its rules would become part of another role",
        ),
        (
            _binding(roleRef={"kind": "ClusterRole", "name": "cluster-admin"}),
            "its role is not among the objects",
        ),
        (
            _binding(subjects=[{"kind": "Group", "name": "system:nodes"}]),
            "somebody who is not among the objects",
        ),
        (
            _binding(subjects=[{"kind": "ServiceAccount", "namespace": "default", "name": "csi"}]),
            "somebody who is not among the objects",
        ),
        (_pod(hostPID=True), "hostPID is not for these"),
        (_pod(hostIPC=True), "hostIPC is not for these"),
        # an account of Kubernetes' own, which may do all that roles here may not
        (_pod(serviceAccountName="clusterrole-aggregation-controller"), "acts as clusterrole-aggr"),
        (_pod(serviceAccount="clusterrole-aggregation-controller"), "acts as clusterrole-aggr"),
        (_pod(serviceAccountName=None), "acts as None"),
        (
            _more(
                apiVersion="v1",
                kind="ServiceAccount",
                metadata={"name": "expand-controller", "namespace": "kube-system"},
            ),
            "expected an account called after csi or cloud",
        ),
        (_pod(volumes=[{"name": "x", "secret": {"secretName": "s"}}]), "volume of kind secret"),
        (
            _pod(volumes=[{"name": "x", "projected": {"sources": [{"secret": {"name": "s"}}]}}]),
            "volume of kind projected",
        ),
        (
            _storage_class({"storageclass.kubernetes.io/is-default-class": "true"}),
            "is the default, expected a class that is asked for",
        ),
        (
            _storage_class({"storageclass.beta.kubernetes.io/is-default-class": "true"}),
            "is the default, expected a class that is asked for",
        ),
        (_pod(volumes=[{"name": "x", "csi": {"driver": "d"}}]), "volume of kind csi"),
        (_container(envFrom=[{"secretRef": {"name": "s"}}]), "has a secret in its environment"),
        (
            _container(
                env=[{"name": "x", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
            ),
            "has a secret in its environment",
        ),
        (_host("/var/lib/constellation"), "sees /var/lib/constellation of the node"),
        (_host("/"), "sees / of the node"),
        (_host("/run/constellation/host"), "of the node"),
        (_host("/var/lib/kubelet/../constellation"), "of the node"),
        (_host("/var/lib/kubelets"), "of the node"),
        (_host("/etc/kubernetes/pki"), "of the node"),
        (_host("/etc/ssl", readOnly=True), "sees /etc/ssl of the node"),
        (_host("/etc/ssl/certs"), "may write /etc/ssl/certs of the node"),
        (_host("/etc/ssl/certs/x.crt", readOnly=False), "may write /etc/ssl/certs/x.crt of"),
        (_host("/usr"), "may write /usr of the node"),
        (_host("/usr/../etc", readOnly=True), "sees /usr/../etc of the node"),
        (_host("/run/constellation/cloud", readOnly=True), "on any node, expected control planes"),
        (_host("/run/constellation/cloud/cloud.conf", readOnly=True), "of the node"),
        (_host("/run/constellation", readOnly=True), "sees /run/constellation of the node"),
        (
            _more(apiVersion="v1", kind="Secret", metadata={"name": "s", "namespace": "x"}),
            "expected a kind of the list",
        ),
        (
            _more(
                apiVersion="admissionregistration.k8s.io/v1",
                kind="MutatingWebhookConfiguration",
                metadata={"name": "w"},
            ),
            "expected a kind of the list",
        ),
        (
            _more(apiVersion="v1", kind="ServiceAccount", metadata={"name": "a"}),
            "expected kube-system",
        ),
        (
            _more(
                apiVersion="v1",
                kind="ServiceAccount",
                metadata={"name": "a", "namespace": "default"},
            ),
            "expected kube-system",
        ),
        (
            _more(
                apiVersion="rbac.authorization.k8s.io/v1",
                kind="ClusterRole",
                metadata={"name": "sum"},
                aggregationRule={"clusterRoleSelectors": []},
            ),
            "is made of other roles",
        ),
    ],
)
def test_what_may_not_run_is_named(
    change: Callable[[list[dict[str, Any]]], None], said: str
) -> None:
    items = objects()
    change(items)
    (found,) = findings(items)
    assert said in found


def test_a_credential_is_read_by_pods_of_control_planes_alone() -> None:
    items, bound = objects(), {"node-role.kubernetes.io/control-plane": ""}
    _host("/run/constellation/cloud", readOnly=True)(items)
    _pod(nodeSelector=bound)(items)
    check_objects(dump(items))
    _host("/run/constellation/cloud", readOnly=False)(items)
    assert "may write /run/constellation/cloud" in findings(items)[0]
    _host("/run/constellation/cloud", readOnly=True)(items)
    _pod(nodeSelector={"pool": "a"})(items)
    assert "expected control planes alone" in findings(items)[0]


def test_all_findings_are_told_at_once() -> None:
    items = objects()
    _role(verbs=["*"])(items)
    _pod(hostPID=True, hostIPC=True)(items)
    assert len(findings(items)) == 3


def test_one_role_of_kubernetes_own_may_be_taken() -> None:
    items = objects()
    reader = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "reader", "namespace": "kube-system"},
        "roleRef": {"kind": "Role", "name": "extension-apiserver-authentication-reader"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "kube-system", "name": "csi"}],
    }
    items.append(reader)
    check_objects(dump(items))
    reader["roleRef"] = {"kind": "Role", "name": "another"}
    assert findings(items)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"kind": "List", "items": []}',
        b'{"kind": "List", "items": [1]}',
        b'{"kind": "List", "items": [{"metadata": {"name": "x"}}]}',
        json.dumps({"kind": "List", "items": objects() * 20}).encode(),
        b" " * (MAX_BYTES + 1),
        b"[" * 100_000,
    ],
)
def test_what_is_no_list_is_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        check_objects(data)


PLACES = (
    ("spec",),
    ("spec", "template"),
    ("spec", "template", "spec"),
    ("spec", "template", "spec", "containers"),
    ("spec", "template", "spec", "volumes"),
    ("rules",),
    ("subjects",),
    ("roleRef",),
    ("metadata",),
    ("kind",),
)
JUNK = st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.just([]) | st.just([1])


@given(index=st.integers(0, 5), place=st.sampled_from(PLACES), junk=JUNK | st.just([{"a": 1}]))
def test_junk_anywhere_is_a_typed_error(index: int, place: tuple[str, ...], junk: object) -> None:
    items = copy.deepcopy(objects())
    inner: Any = items[index % len(items)]
    for key in place[:-1]:
        inner = inner.get(key) if isinstance(inner, dict) else None
    if not isinstance(inner, dict):
        return
    inner[place[-1]] = junk
    with contextlib.suppress(FormatError, Rejected):
        check_objects(dump(items))
