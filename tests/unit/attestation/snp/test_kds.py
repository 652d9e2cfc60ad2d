"""AMD's key distribution service: asked once, asked slowly, and not asked for what is at hand."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from constellation.attestation.snp import Product, SigningKey, Tcb, parse_report, verify
from constellation.attestation.snp.endorsements import Endorsements, pack_certificate_table
from constellation.attestation.snp.kds import Kds, crl_path, vcek_path
from constellation.base.errors import FormatError, Unavailable
from tests.fakes.amd import NOW, AmdWorld
from tests.fakes.origin_server import OriginServer, origin_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime
    from pathlib import Path

WORLD = AmdWorld()
CHIP = WORLD.chip()
REPORT = parse_report(CHIP.report())
VCEK = vcek_path(Product.MILAN, chip_id=CHIP.hwid, tcb=CHIP.tcb)
CRL = crl_path(Product.MILAN, SigningKey.VCEK)


@dataclass
class Clock:
    """Time that passes only while somebody sleeps; `then` happens meanwhile."""

    now: float = 100.0
    slept: list[float] = field(default_factory=list)
    then: object = None

    def monotonic_s(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        if callable(self.then):
            self.then()


@pytest.fixture
async def server() -> AsyncIterator[OriginServer]:
    async with origin_server() as running:
        running.files[VCEK.partition("?")[0]] = CHIP.vek
        running.files[CRL] = WORLD.crl()
        yield running


def kds(server: OriginServer, cache: Path, clock: Clock | None = None) -> Kds:
    clock = clock or Clock()
    return Kds(cache, base_url=server.url, monotonic_s=clock.monotonic_s, sleep=clock.sleep)


async def endorse(
    service: Kds, *, certificates: bytes = b"", now: datetime = NOW, version: int = 5
) -> Endorsements:
    return await service.endorse(
        parse_report(CHIP.report(version=version)), certificates=certificates, product=None,
        now=now, deadline_s=60,
    )  # fmt: skip


def test_addresses_are_those_of_the_specification() -> None:
    tcb = Tcb(fmc=1, bootloader=4, tee=0, snp=24, microcode=219)
    milan = vcek_path(Product.MILAN, chip_id=b"\xab" * 64, tcb=tcb)
    query = "?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219"
    assert milan == f"/vcek/v1/Milan/{'ab' * 64}{query}"
    turin = vcek_path(Product.TURIN, chip_id=b"\xab" * 8 + bytes(56), tcb=tcb)
    assert turin == f"/vcek/v1/Turin/{'ab' * 8}?fmcSPL=01&{query[1:]}"
    assert crl_path(Product.GENOA, SigningKey.VLEK) == "/vlek/v1/Genoa/crl"


async def test_what_was_fetched_endorses_the_report(server: OriginServer, tmp_path: Path) -> None:
    given = await endorse(kds(server, tmp_path))
    assert sorted(server.paths()) == sorted((VCEK, CRL))
    with_ours = Endorsements(vek=given.vek, intermediate=CHIP.intermediate, crl=given.crl)
    found = verify(REPORT, endorsements=with_ours, roots=WORLD.roots, now=NOW)
    assert found.claims.crl_current


async def test_nothing_is_asked_twice(server: OriginServer, tmp_path: Path) -> None:
    service = kds(server, tmp_path)
    first, *rest = await asyncio.gather(*(endorse(service) for _ in range(8)))
    assert all(given == first for given in rest)
    assert len(server.paths()) == 2
    assert await endorse(kds(server, tmp_path)) == first
    assert len(server.paths()) == 2


async def test_an_old_list_is_fetched_anew_and_kept_if_that_fails(
    server: OriginServer, tmp_path: Path
) -> None:
    await endorse(kds(server, tmp_path))
    old, later = server.files[CRL], NOW + timedelta(days=40)
    server.files[CRL] = WORLD.crl(next_update=NOW + timedelta(days=80))
    assert (await endorse(kds(server, tmp_path), now=later)).crl == server.files[CRL]
    server.files[CRL] = b"not a list"
    assert (await endorse(kds(server, tmp_path), now=NOW + timedelta(days=81))).crl == b"not a list"
    server.files[CRL] = old
    assert (await endorse(kds(server, tmp_path), now=NOW)).crl == old
    del server.files[CRL]
    assert (await endorse(kds(server, tmp_path), now=later)).crl == old


async def test_a_list_that_cannot_be_had_is_left_out(server: OriginServer, tmp_path: Path) -> None:
    del server.files[CRL]
    assert (await endorse(kds(server, tmp_path))).crl is None


async def test_what_the_host_attached_is_not_fetched(server: OriginServer, tmp_path: Path) -> None:
    table = {"vcek": CHIP.vek, "ask": CHIP.intermediate, "crl": WORLD.crl()}
    given = await endorse(kds(server, tmp_path), certificates=pack_certificate_table(table))
    assert (given.vek, given.intermediate, given.crl) == tuple(table.values())
    assert not server.requests
    with pytest.raises(FormatError):
        await endorse(kds(server, tmp_path), certificates=b"junk")


async def test_the_service_is_left_alone_while_it_says_so(
    server: OriginServer, tmp_path: Path
) -> None:
    path = VCEK.partition("?")[0]
    server.statuses[path] = 429
    clock = Clock(then=server.statuses.clear)
    assert (await endorse(kds(server, tmp_path, clock))).vek == CHIP.vek
    assert clock.slept == [10.0]

    server.statuses[path] = 429
    service = kds(server, tmp_path / "other", Clock(then=None))
    with pytest.raises(Unavailable, match="of quiet"):
        await endorse(service)
    asked = len(server.requests)
    with pytest.raises(Unavailable, match="of quiet"):
        await service.get("/another", fresh=None, end=101.0)
    assert len(server.requests) == asked


async def test_what_is_not_there_is_not_asked_for_again_at_once(
    server: OriginServer, tmp_path: Path
) -> None:
    clock = Clock()
    service = kds(server, tmp_path, clock)
    for match in ("status 404", "a moment ago"):
        with pytest.raises(Unavailable, match=match):
            await service.get("/none", fresh=None, end=10**6)
    assert len(server.requests) == 1
    clock.now += 301
    server.files["/none"] = b"now"
    assert await service.get("/none", fresh=None, end=10**6) == b"now"


async def test_a_report_that_does_not_say_its_product_needs_it_said(
    server: OriginServer, tmp_path: Path
) -> None:
    with pytest.raises(Unavailable, match="does not say its product"):
        await endorse(kds(server, tmp_path), version=2)
    given = await kds(server, tmp_path).endorse(
        parse_report(CHIP.report(version=2)), certificates=b"", product=Product.MILAN, now=NOW,
        deadline_s=60,
    )  # fmt: skip
    assert given.vek == CHIP.vek


async def test_keys_lent_to_clouds_come_from_the_cloud_only(
    server: OriginServer, tmp_path: Path
) -> None:
    chip = WORLD.chip(kind=SigningKey.VLEK)
    with pytest.raises(Unavailable, match="only the cloud"):
        await kds(server, tmp_path).endorse(
            parse_report(chip.report()), certificates=b"", product=None, now=NOW, deadline_s=60
        )
