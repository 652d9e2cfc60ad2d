"""A TD guest's files: quotes are ours or refused, registers are written and never made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from constellation.attestation.tdx.device import Folder, TdGuest
from constellation.attestation.tdx.quote import parse_quote
from constellation.attestation.tdx.rtmr import ZERO
from constellation.attestation.tdx.verify import verify
from constellation.base.errors import Unavailable
from tests.fakes.intel import NOW, IntelWorld
from tests.fakes.td_guest import ConfigfsTsm

if TYPE_CHECKING:
    from pathlib import Path


def guest(tsm: ConfigfsTsm, folder: Path) -> TdGuest:
    return TdGuest(reports=tsm, ccel=folder / "CCEL", rtmr3=folder / "rtmr3:sha384")


async def test_a_quote_is_over_the_given_bytes_and_leaves_nothing(tmp_path: Path) -> None:
    world = IntelWorld()
    tsm = ConfigfsTsm(world)
    quote = parse_quote(await guest(tsm, tmp_path).quote(b"\7" * 64))
    assert quote.body.report_data == b"\7" * 64
    verify(quote, collateral=world.collateral(), roots=world.roots, now=NOW)
    assert tsm.entries == {}


async def test_a_quote_that_somebody_else_asked_for_in_between_is_not_taken(tmp_path: Path) -> None:
    tsm = ConfigfsTsm(IntelWorld())
    tsm.others_write = 1
    quote = parse_quote(await guest(tsm, tmp_path).quote(b"\7" * 64))
    assert quote.body.report_data == b"\7" * 64
    tsm.others_write = 99
    with pytest.raises(Unavailable, match="changed under us"):
        await guest(tsm, tmp_path).quote(b"\7" * 64)
    assert tsm.entries == {}


async def test_another_technology_is_refused(tmp_path: Path) -> None:
    tsm = ConfigfsTsm(IntelWorld())
    tsm.provider = b"sev_guest\n"
    with pytest.raises(Unavailable, match="sev_guest"):
        await guest(tsm, tmp_path).quote(bytes(64))


async def test_no_td_is_said_as_such(tmp_path: Path) -> None:
    nothing = TdGuest(
        reports=Folder(tmp_path / "none"), ccel=tmp_path / "CCEL", rtmr3=tmp_path / "rtmr3"
    )
    with pytest.raises(Unavailable, match="configfs-tsm"):
        await nothing.quote(bytes(64))
    with pytest.raises(Unavailable, match="event log"):
        await nothing.event_log()
    with pytest.raises(Unavailable, match="RTMR3"):
        await nothing.extend_rtmr3(bytes(48))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="64"):
        await nothing.quote(b"")
    with pytest.raises(ValueError, match="48"):
        await nothing.extend_rtmr3(b"")


async def test_log_and_register_are_files(tmp_path: Path) -> None:
    device = guest(ConfigfsTsm(IntelWorld()), tmp_path)
    (tmp_path / "CCEL").write_bytes(b"log")
    (tmp_path / "rtmr3:sha384").write_bytes(ZERO)
    assert await device.event_log() == b"log"
    await device.extend_rtmr3(b"\1" * 48)
    assert await device.rtmr3() == b"\1" * 48  # the kernel would extend; a file is overwritten


async def test_the_real_folder_is_used_as_the_kernel_wants_it(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.make("entry")
    folder.write("entry", "inblob", b"bytes")
    assert folder.read("entry", "inblob") == b"bytes"
    (tmp_path / "entry" / "inblob").unlink()
    folder.remove("entry")
    assert list(tmp_path.iterdir()) == []
