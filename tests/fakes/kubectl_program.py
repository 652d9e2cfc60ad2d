"""A kubectl that works on objects in a file: what a control plane's host asks for components.

It knows `get` by a list and by a label, `apply --server-side` with and without a dry run, `delete`,
`annotate`, and refuses as an API server does to change what cannot be changed. `dies_at` ends it by
a signal at one of its calls, before or after that call's work.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["KubectlProgram"]

_PROGRAM = """#!{python}
import json, os, pathlib, sys

home = pathlib.Path({home!r})
store = home / "objects.json"
objects = json.loads(store.read_text())
words = sys.argv[3:]  # --kubeconfig FILE
calls = home / "calls"
with calls.open("a") as file:
    file.write(json.dumps(words) + "\\n")
number = len(calls.read_text().splitlines())
when = (home / "dies").read_text().split() if (home / "dies").exists() else ["0", ""]


def die(moment):
    if (str(number), moment) == tuple(when[:2]):
        os.kill(os.getpid(), 9)


def option(name):
    return words[words.index(name) + 1] if name in words else ""


def key(item):
    meta = item["metadata"]
    return [item["apiVersion"], item["kind"], meta.get("namespace", ""), meta["name"]]


def refuse(reason):
    sys.exit("Error from server: " + reason)


FIXED = {{
    "StorageClass": lambda o: (o["provisioner"], o.get("parameters"), o.get("reclaimPolicy")),
    "ClusterRoleBinding": lambda o: o["roleRef"]["name"],
    "RoleBinding": lambda o: o["roleRef"]["name"],
    "DaemonSet": lambda o: o["spec"].get("selector"),
}}


def kinds(text):
    for word in text.split(","):
        kind, _, rest = word.partition(".")
        version, _, group = rest.partition(".")
        yield [group + "/" + version if group else version or "v1", kind]


def same_kind(item, wanted):
    return [item["apiVersion"], item["kind"]] in wanted


die("before")
verb = next(w for w in words if w in ("get", "apply", "delete", "annotate"))
if verb == "get" and "-f" in words:
    names = [key(item) for item in json.load(sys.stdin)["items"]]
    found = [o for o in objects if key(o) in names]
    if len(found) == 1:
        print(json.dumps(found[0]))
    elif found:
        print(json.dumps({{"apiVersion": "v1", "kind": "List", "items": found}}))
elif verb == "get":
    wanted = list(kinds(words[words.index("get") + 1]))
    label, _, value = option("-l").partition("=")
    found = [
        o
        for o in objects
        if same_kind(o, wanted)
        and o["metadata"].get("namespace", "") in ("", option("-n"))
        and o["metadata"].get("labels", {{}}).get(label) == value
    ]
    print(json.dumps({{"apiVersion": "v1", "kind": "List", "items": found}}))
elif verb == "apply":
    items = json.load(sys.stdin)["items"]
    for item in items:
        if item["metadata"].get("annotations", {{}}).get("refused"):
            refuse("admission webhook denied the request")
        before = next((o for o in objects if key(o) == key(item)), None)
        fixed = FIXED.get(item["kind"], lambda o: 0)
        if before is not None and fixed(before) != fixed(item):
            refuse(item["kind"] + ": field is immutable")
        if "--dry-run=server" not in words:  # one by one: what came before a refusal stays
            objects = [o for o in objects if key(o) != key(item)] + [item]
            store.write_text(json.dumps(objects))
elif verb == "delete":
    (kind,) = kinds(words[words.index("delete") + 1])
    names = words[words.index("--") + 1:]
    objects = [
        o
        for o in objects
        if not (
            same_kind(o, [kind])
            and o["metadata"].get("namespace", "") == option("-n")
            and o["metadata"]["name"] in names
        )
    ]
elif verb == "annotate":
    (target,) = [o for o in objects if key(o) == ["v1", "ConfigMap", option("-n"), words[4]]]
    marks = target["metadata"].setdefault("annotations", {{}})
    name, is_set, value = words[-1].partition("=")
    if is_set:
        marks[name] = value
    else:
        marks.pop(name.removesuffix("-"), None)
store.write_text(json.dumps(objects))
die("after")
"""


@dataclass(frozen=True, kw_only=True)
class KubectlProgram:
    """The program and its objects, in a folder."""

    home: Path

    def install(self, programs: Path) -> None:
        """Write the program; the cluster has what kubeadm and `init` make, as far as it matters."""
        self.home.mkdir(exist_ok=True)
        programs.mkdir(exist_ok=True)
        path = programs / "kubectl"
        path.write_text(_PROGRAM.format(python=sys.executable, home=str(self.home)))
        path.chmod(0o755)
        rbac = "rbac.authorization.k8s.io/v1"
        self.write(
            [
                _object("v1", "ConfigMap", "kubeadm-config"),
                _object("v1", "ConfigMap", "coredns"),
                _object("apps/v1", "Deployment", "coredns"),
                _object(rbac, "ClusterRole", "cluster-admin", namespace=""),
                _object(rbac, "ClusterRole", "constellation:operator", namespace=""),
            ]
        )

    def objects(self) -> list[dict[str, Any]]:
        """Give what the cluster has."""
        found: list[dict[str, Any]] = json.loads((self.home / "objects.json").read_text())
        return found

    def write(self, objects: list[dict[str, Any]]) -> None:
        """Let the cluster have these."""
        (self.home / "objects.json").write_text(json.dumps(objects))

    def names(self) -> set[str]:
        """Give every object as KIND/NAME."""
        return {f"{o['kind']}/{o['metadata']['name']}" for o in self.objects()}

    def annotation(self, name: str) -> str:
        """Give what kubeadm-config is annotated with."""
        (config,) = [o for o in self.objects() if o["metadata"]["name"] == "kubeadm-config"]
        return str(config["metadata"].get("annotations", {}).get(name, ""))

    def verbs(self) -> list[str]:
        """Give the verb of every call so far; of a dry run: "dry run"."""
        calls = self.home / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        return [_verb(json.loads(line)) for line in lines]

    def dies_at(self, call: int, moment: str) -> None:
        """End by a signal at a call, counted from now; "before" or "after" its work."""
        (self.home / "dies").write_text(f"{len(self.verbs()) + call} {moment}")


def _verb(words: list[str]) -> str:
    if "--dry-run=server" in words:
        return "dry run"
    return next(w for w in words if w in ("get", "apply", "delete", "annotate"))


def _object(
    api_version: str, kind: str, name: str, *, namespace: str = "kube-system"
) -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}
