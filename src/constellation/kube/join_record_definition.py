"""JoinRecord, the Kubernetes resource that the join log is written in. Pure.

Source: Kubernetes API, apiextensions.k8s.io/v1; what the fields mean: `kube.join_records`.
"""

from __future__ import annotations

from typing import Any, Final

from constellation.kube.cluster_release import API_GROUP

__all__ = ["GROUP", "VERSION", "join_record_definition"]

GROUP: Final = API_GROUP
VERSION: Final = "v1alpha1"


def join_record_definition() -> dict[str, Any]:
    """Give the CustomResourceDefinition that the API must know before the first record."""
    text = {"type": "string"}
    fields = {
        "record": text,
        "signature": text,
        "kind": text,
        "time": {"type": "integer", "format": "int64"},
        "node": text,
        "address": text,
        "reasons": {"type": "array", "items": text},
    }
    column = [
        {"name": name, "type": "string", "jsonPath": f".spec.{name.lower()}"}
        for name in ("Kind", "Node", "Address")
    ]
    spec = {"type": "object", "required": ["record", "signature"], "properties": fields}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"joinrecords.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Cluster",
            "names": {
                "kind": "JoinRecord",
                "listKind": "JoinRecordList",
                "plural": "joinrecords",
                "singular": "joinrecord",
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": column,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
                }
            ],
        },
    }
