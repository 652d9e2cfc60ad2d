"""A node's rim that works without a machine: a state disk in a folder, programs that keep a diary.

What lies on the disk survives `power_cycle` only if the disk was finished; what holds for one boot
(mounts, units, PCR 15) never does. kubeadm and kubectl are small programs in the node's own folder.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from constellation.disk import state_disk
from constellation.disk.state_disk import DiskRecord
from constellation.disk.superblock import State
from constellation.kube import units
from constellation.services.bootstrapper import kubernetes, runtime
from constellation.services.bootstrapper.paths import Paths
from constellation.services.steps import Step

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from constellation.attestation.model import Variant
    from constellation.base.secret import Secret

__all__ = ["NodeRim", "PowerCut", "cut_at"]

_KUBEADM = """#!/bin/sh
# keeps a diary; `certs all` leaves what the real one leaves
echo "kubeadm $1 $3 $4" | sed 's/ --config//' >> {diary}
if [ "$3 $4" = "certs all" ]; then mkdir -p {pki}; cp -n {given}/ca.crt {given}/ca.key {pki}/; fi
if [ "$3 $4" = "kubeconfig all" ]; then echo kubeconfig > {kubernetes}/admin.conf; fi
"""
_KUBECTL = """#!/bin/sh
cat >> {applied}
echo "kubectl $3" >> {diary}
"""
_OF_ONE_BOOT = (
    *("check_programs", "start_containerd", "mount_services", "start_keyservice"),
    *("configure_pod_network", "start_mesh", "ensure_kubelet", "start_kube_proxy"),
    "start_upgrade_agent",
)


def _new_disk() -> DiskRecord:
    return DiskRecord(state=State.NEW, uuid=os.urandom(16).hex())


class PowerCut(Exception):
    """The machine lost its power here."""


@dataclass(kw_only=True)
class NodeRim:
    """One machine; `given` is PCR 15, `on` what was started in this boot, `formatted` a count."""

    folder: Path
    known: bool = False
    given: bool = False
    formatted: int = 0
    way: state_disk.Way | None = None
    on: set[str] = field(default_factory=set)
    record: DiskRecord = field(default_factory=_new_disk)
    attester_id: bytes = bytes(32)
    provider: str = "local"

    @property
    def paths(self) -> Paths:
        disk = self.folder / "disk"
        return Paths(
            state=disk / "constellation",
            kubernetes=disk / "etc-kubernetes",
            kubelet=disk / "kubelet",
            run=self.folder / "run",
            host=self.folder / "run" / "host",
            provider=self.provider,
        )

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Put this rim in the place of the machine's."""
        programs, given = self.folder / "bin", self.folder / "given"
        for path in (programs, given, self.folder / "run"):
            path.mkdir(parents=True)
        words = {
            "diary": self.folder / "diary",
            "given": given,
            "applied": self.folder / "applied",
            "pki": self.paths.pki,
            "kubernetes": self.paths.kubernetes,
        }
        for name, text in (("kubeadm", _KUBEADM), ("kubectl", _KUBECTL)):
            (programs / name).write_text(text.format(**words))
            (programs / name).chmod(0o755)
        patch.setattr(units, "BIN_DIR", programs)
        patch.setattr(state_disk, "read_record", lambda: self.record)
        patch.setattr(state_disk, "write_record", self._write_record)
        patch.setattr(state_disk, "format_and_open", self._format)
        patch.setattr(state_disk, "bind_folders", self._bind)
        patch.setattr(state_disk, "finish", self._finish)
        for name in _OF_ONE_BOOT:
            patch.setattr(runtime, name, self._starts(name))
        patch.setattr(runtime, "place_static_pods", lambda *_, **__: self.on.add("static pods"))
        patch.setattr(kubernetes, "wait_for_api", self._starts("API server"))

    def power_cycle(self) -> None:
        """Begin the next boot: PCR 15 zero; a known disk is open again, its key came."""
        self.on.clear()
        self.given = self.known
        if self.known:
            self.record = DiskRecord(state=State.OPEN, uuid=self.record.uuid)
        else:
            shutil.rmtree(self.folder / "disk", ignore_errors=True)
            self.record = _new_disk()

    def diary(self) -> list[str]:
        """List what programs were run, all boots."""
        path = self.folder / "diary"
        return path.read_text().splitlines() if path.exists() else []

    async def given_to_cluster(self) -> bool:
        return self.given

    async def give_to_cluster(self, cluster_id: bytes) -> None:
        assert len(cluster_id) == 32
        assert not self.given
        self.given = True

    def _write_record(self, record: DiskRecord) -> None:
        self.record = record

    async def _format(self, device: Path, uuid: bytes, key: Secret, *, variant: Variant) -> None:
        del device, key
        assert self.given, "PCR 15 comes before the first byte of the disk"
        assert not self.known, "a known disk is never formatted"
        assert uuid.hex() == self.record.uuid
        self.formatted += 1
        self.way = state_disk.way_of(variant)

    async def _bind(self) -> None:
        for path in (self.paths.state, self.paths.kubernetes, self.paths.kubelet):
            path.mkdir(parents=True)

    async def _finish(self, *, variant: Variant) -> None:
        assert state_disk.way_of(variant) is self.way
        self.known = True

    def _starts(self, name: str) -> object:
        async def start(*_: object, **__: object) -> None:
            self.on.add(name)

        return start


def cut_at(steps: tuple[Step, ...], index: int, *, after: bool) -> tuple[Step, ...]:
    """Give the steps with a power cut at one: before it, or after it and before its record."""
    step = steps[index]

    async def do() -> None:
        if after:
            await step.do()
        raise PowerCut(step.name)

    cut = Step(name=step.name, do=do, volatile=step.volatile)
    return (*steps[:index], cut, *steps[index + 1 :])
