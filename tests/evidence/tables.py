"""How do the rooms' tests work on another folder than the one that they were imported with?

Their tables of entries are made when they are imported; here they are filled anew, in place.
"""

from __future__ import annotations

from typing import Any

from tests.unit.attestation.ima import test_measurement_list as ima
from tests.unit.attestation.kinds import test_published as clouds
from tests.unit.attestation.snp import test_evidence as snp
from tests.unit.attestation.tdx import test_tdx_verify_published as tdx
from tests.unit.attestation.tpm import test_eventlog as logs
from tests.vectors import evidence

__all__ = ["fill"]


def _items(platform: str) -> dict[str, Any]:
    there = (evidence.folder() / platform / "manifest.json").is_file()
    return evidence.items(platform) if there else {}


def _renew(table: dict[str, Any], entries: dict[str, Any]) -> None:
    table.clear()
    table.update(entries)


def fill() -> None:
    """Fill every table from the folder that the environment names now."""
    for table, platform in (
        (snp.ITEMS, "amd-snp"), (tdx.ITEMS, "intel-tdx"), (logs.ITEMS, "tpm-eventlog"),
        (ima.ITEMS, "ima"), (clouds.AZURE, "azure"), (clouds.GCP, "gcp"), (clouds.AWS, "aws"),
    ):  # fmt: skip
        _renew(table, _items(platform))
    for edits, platforms in (
        (snp.MUTATIONS, ("amd-snp",)), (tdx.MUTATIONS, ("intel-tdx",)),
        (logs.MUTATIONS, ("tpm-eventlog",)), (clouds.EDITS, ("azure", "gcp", "aws")),
    ):  # fmt: skip
        _renew(edits, {m["id"]: m for p in platforms for m in evidence.mutations(p)})
    for name, item in logs.ITEMS.items():
        if item["kind"].startswith("CCEL"):  # the room's tests tell them by how their id begins
            logs.ITEMS[name] = item | {"id": f"ccel-{name}"}
    lists = {n: evidence.read("ima", i, "list") for n, i in ima.ITEMS.items()}
    _renew(ima.LISTS, lists)
    snp.REPORTS[:] = sorted(n for n, i in snp.ITEMS.items() if i["kind"].startswith("report"))
    tdx.BUNDLES[:] = [n for n, i in tdx.ITEMS.items() if i["kind"].startswith("collateral")]
    snp.EDITS[:] = [n for n, m in snp.MUTATIONS.items()
                    if m["at"] in ("report", "certificate", "time")
                    and not snp.ITEMS[m["base"]]["kind"].startswith("crl")]  # fmt: skip
