"""Collateral is fetched once, kept, renewed, and used as long as it holds."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote as url_quote

import pytest

from constellation.attestation.tdx.pcs import ROOT_CA_CRL, SERVICE, PckCa, PcsClient, platform_of
from constellation.attestation.tdx.quote import TeeType, parse_quote
from constellation.attestation.tdx.verify import verify
from constellation.base.errors import FormatError, Unavailable
from constellation.base.fetch import Document, HttpStatus
from tests.fakes.intel import FMSPC, NOW, IntelWorld
from tests.vectors import evidence

if TYPE_CHECKING:
    from pathlib import Path


class Service:
    """Intel's service in memory: answers from a world, counts, and may be down."""

    def __init__(self, world: IntelWorld) -> None:
        self.world, self.asked = world, list[str]()
        self.down = False
        self.now = NOW

    async def get(self, url: str) -> Document:
        self.asked.append(url)
        await asyncio.sleep(0)
        if self.down:
            raise HttpStatus(url, status=503, headers={})
        found = self.world.collateral()
        tee = self.world.tcb_info["id"].lower()
        answers = {
            f"{SERVICE}/{tee}/certification/v4/tcb?fmspc={FMSPC.hex()}": (
                b'{"tcbInfo":%b,"signature":"%b"}'
                % (found.tcb_info, found.tcb_info_signature.hex().encode()),
                {"tcb-info-issuer-chain": url_quote(found.tcb_info_issuer_chain)},
            ),
            f"{SERVICE}/{tee}/certification/v4/qe/identity": (
                b'{"enclaveIdentity":%b,"signature":"%b"}'
                % (found.qe_identity, found.qe_identity_signature.hex().encode()),
                {"sgx-enclave-identity-issuer-chain": url_quote(found.qe_identity_issuer_chain)},
            ),
            f"{SERVICE}/sgx/certification/v4/pckcrl?ca=platform&encoding=der": (
                found.pck_crl,
                {"sgx-pck-crl-issuer-chain": url_quote(found.pck_crl_issuer_chain)},
            ),
            ROOT_CA_CRL: (found.root_ca_crl, {}),
        }
        if url not in answers:
            raise HttpStatus(url, status=404, headers={})
        body, headers = answers[url]
        return Document(body=body, headers=headers, url=url)

    def client(self, cache: Path | None = None) -> PcsClient:
        return PcsClient(cache=cache, now=lambda: self.now, get=self.get)


async def test_collateral_of_a_quote_verifies_it() -> None:
    world = IntelWorld()
    service, quote = Service(world), parse_quote(world.quote())
    collateral = await service.client().of_quote(quote)
    verify(quote, collateral=collateral, roots=world.roots, now=NOW)
    assert len(service.asked) == 4


async def test_an_enclave_needs_the_documents_of_enclaves() -> None:
    world = IntelWorld()
    world.become_enclave()
    service, quote = Service(world), parse_quote(world.quote())
    collateral = await service.client().of_quote(quote)
    verify(quote, collateral=collateral, roots=world.roots, now=NOW)
    assert platform_of(quote).tee is TeeType.SGX


async def test_many_who_ask_at_once_make_one_request() -> None:
    world = IntelWorld()
    service, quote = Service(world), parse_quote(world.quote())
    client = service.client()
    found = await asyncio.gather(*(client.of_quote(quote) for _ in range(50)))
    assert len(service.asked) == 4
    assert len({c.dump() for c in found}) == 1


async def test_one_who_gives_up_does_not_take_it_from_the_others() -> None:
    world = IntelWorld()
    service, quote = Service(world), parse_quote(world.quote())
    client = service.client()
    first = asyncio.create_task(client.of_quote(quote))
    second = asyncio.create_task(client.of_quote(quote))
    await asyncio.sleep(0)
    first.cancel()
    assert await second
    assert len(service.asked) == 4


async def test_what_was_fetched_is_kept_for_a_day_also_on_disk(tmp_path: Path) -> None:
    world = IntelWorld()
    service, quote = Service(world), parse_quote(world.quote())
    await service.client(tmp_path).of_quote(quote)
    service.now += timedelta(hours=23)
    await service.client(tmp_path).of_quote(quote)
    assert len(service.asked) == 4
    service.now += timedelta(hours=2)
    await service.client(tmp_path).of_quote(quote)
    assert len(service.asked) == 8


async def test_kept_collateral_is_used_while_the_service_is_down_until_it_expires() -> None:
    world = IntelWorld()
    service, quote = Service(world), parse_quote(world.quote())
    client = service.client()
    kept = await client.of_quote(quote)
    service.down = True
    service.now += timedelta(days=20)
    assert await client.of_quote(quote) == kept
    service.now += timedelta(days=20)
    with pytest.raises(Unavailable, match="503"):
        await client.of_quote(quote)


async def test_a_failure_is_remembered_for_a_minute() -> None:
    world = IntelWorld()
    service, quote = Service(world), parse_quote(world.quote())
    service.down = True
    client = service.client()
    with pytest.raises(Unavailable, match="503"):
        await client.of_quote(quote)
    asked = len(service.asked)
    service.down = False
    with pytest.raises(Unavailable, match="less than a minute"):
        await client.of_quote(quote)
    assert len(service.asked) == asked
    service.now += timedelta(minutes=1)
    assert await client.of_quote(quote)


async def test_a_damaged_file_is_fetched_again(tmp_path: Path) -> None:
    world = IntelWorld()
    service, quote = Service(world), parse_quote(world.quote())
    await service.client(tmp_path).of_quote(quote)
    (path,) = tmp_path.iterdir()
    for damage in (b"", b"{}", path.read_bytes()[:-9]):
        path.write_bytes(damage)
        service.asked.clear()
        assert await service.client(tmp_path).of_quote(quote)
        assert len(service.asked) == 4


async def test_an_answer_without_its_signers_is_a_format_error() -> None:
    world = IntelWorld()
    service, quote = Service(world), parse_quote(world.quote())

    async def bare(url: str) -> Document:
        document = await service.get(url)
        return Document(body=document.body, headers={}, url=url)

    client = PcsClient(cache=None, now=lambda: NOW, get=bare)
    with pytest.raises(FormatError, match="issuer-chain is missing"):
        await client.of_quote(quote)


def test_published_quotes_name_their_platform() -> None:
    for name, item in evidence.items("intel-tdx").items():
        if name.startswith("quote-"):
            platform = platform_of(parse_quote(evidence.read("intel-tdx", item, "quote")))
            pck = item["values"]["pck"]
            assert platform.ca is PckCa[pck["issuer_ca"].upper()]
            assert platform.fmspc.hex() == pck["fmspc"]
