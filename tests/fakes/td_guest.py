"""A TD guest in memory: configfs-tsm whose quotes an `IntelWorld` signs, event log, RTMR3."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from constellation.attestation.tdx import rtmr
from constellation.attestation.tdx.quote import TdReport10

if TYPE_CHECKING:
    from tests.fakes.intel import IntelWorld

__all__ = ["ConfigfsTsm", "FakeTd"]


@dataclass
class _Entry:
    inblob: bytes = b""
    generation: int = 0


@dataclass
class ConfigfsTsm:
    """`TsmFolder` as a TD's kernel behaves; `others_write` entries are changed by somebody else."""

    world: IntelWorld
    provider: bytes = b"tdx_guest\n"
    others_write: int = 0
    entries: dict[str, _Entry] = field(default_factory=dict)

    def make(self, entry: str) -> None:
        if entry in self.entries:
            raise FileExistsError(entry)
        self.entries[entry] = _Entry()

    def write(self, entry: str, name: str, data: bytes) -> None:
        assert name == "inblob"
        assert len(data) == 64
        self.entries[entry].inblob = data
        self.entries[entry].generation += 1
        if self.others_write:
            self.others_write -= 1
            self.entries[entry].inblob = bytes(64)
            self.entries[entry].generation += 1

    def read(self, entry: str, name: str) -> bytes:
        found = self.entries[entry]
        match name:
            case "provider":
                return self.provider
            case "generation":
                return b"%d\n" % found.generation
            case "outblob":
                return self.world.quote(found.inblob)
            case _:
                raise FileNotFoundError(name)

    def remove(self, entry: str) -> None:
        del self.entries[entry]


@dataclass
class FakeTd:
    """`TdDevice` over an `IntelWorld`: `extend_rtmr3` changes what the next quote says."""

    world: IntelWorld
    log: bytes

    async def quote(self, report_data: bytes) -> bytes:
        return self.world.quote(report_data)

    async def event_log(self) -> bytes:
        return self.log

    async def extend_rtmr3(self, digest: bytes) -> None:
        assert isinstance(self.world.body, TdReport10)
        value = rtmr.extend(self.world.body.rtmr3, digest)
        self.world.body = replace(self.world.body, rtmr3=value)
