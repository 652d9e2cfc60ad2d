"""What each variant's attester collects on its machine is what its verifier accepts."""

from __future__ import annotations

import base64
import contextlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from constellation.attestation import registry, snp
from constellation.attestation.model import Evidence, Variant
from constellation.attestation.nitro.request import parse_response
from constellation.attestation.platforms.aws_attester import (
    BUFFER_INDEX,
    AwsNitroTpmAttester,
    AwsSnpAttester,
)
from constellation.attestation.platforms.aws_sev_snp import AwsSnpEvidence
from constellation.attestation.platforms.azure_imds import Imds
from constellation.attestation.platforms.gcp_attester import (
    AK_INDICES,
    GcpSevEsAttester,
    GcpSnpAttester,
)
from constellation.attestation.platforms.persistent_ak import (
    HCL_REPORT_INDEX,
    AzureTdxAttester,
    ThimAndKds,
)
from constellation.attestation.snp.device import RawReport
from constellation.attestation.snp.kds import Kds
from constellation.attestation.tpm.device import AK_TEMPLATE, Tpm
from constellation.base import decode
from constellation.base.errors import FormatError, Unavailable, Untrusted, UserError
from tests.fakes.amd import AmdWorld
from tests.fakes.aws_nitro import NitroWorld
from tests.fakes.clouds import BINDING, NOW, Machine
from tests.fakes.google import GoogleWorld
from tests.fakes.nsm_tpm import NsmTpm
from tests.fakes.origin_server import origin_server
from tests.fakes.tpm import swtpm

if TYPE_CHECKING:
    from tests.fakes.amd import Chip
    from tests.fakes.vtpm import SoftTpm


@dataclass
class ChipDevice:
    """`SnpDevice` of a chip: signs what it is given."""

    chip: Chip

    async def report(self, report_data: bytes) -> RawReport:
        return RawReport(report=self.chip.report(report_data=report_data), certificates=b"")


def endorsed(chip: Chip) -> Any:
    async def endorse(report: Any, *, certificates: bytes) -> snp.Endorsements:
        assert report.chip_id.rstrip(b"\0") == chip.hwid.rstrip(b"\0")
        assert certificates == b""
        return chip.endorsements()

    return endorse


def judge(machine: Machine, evidence: Evidence) -> Any:
    return machine.verifier.appraise(evidence, binding=BINDING, now=machine.now)


# --- AWS


@contextlib.asynccontextmanager
async def nsm(machine: Machine, **how: Any):  # type: ignore[no-untyped-def]  # noqa: ANN201
    """Run the machine's NitroTPM; its world is that whose root the verifier trusts."""
    world = NitroWorld(NOW)
    object.__setattr__(machine.verifier, "trust_roots", (world.root.der,))
    fake = NsmTpm(world, machine.tpm, **how)
    with tempfile.TemporaryDirectory(prefix="nsm") as name:
        log = Path(name) / "log"
        log.write_bytes(machine.tpm.log.pack())
        async with fake.serve(Path(name) / "tpm") as path, await Tpm.connect(path) as tpm:
            yield fake, tpm, log


async def test_a_nitro_instance_is_accepted_and_leaves_no_index() -> None:
    machine = Machine.make(Variant.AWS_NITRO_TPM)
    async with nsm(machine) as (fake, tpm, log):
        attester = AwsNitroTpmAttester(tpm, log)
        result = judge(machine, await attester.attest(BINDING))
        assert result.variant is Variant.AWS_NITRO_TPM
        assert await attester.attester_id() == result.attester_id
        assert (fake.most, fake.indices) == (1, {})
        machine.tpm.pcrs[4] = bytes(48)
        with pytest.raises(Untrusted, match="PCR 4 replays"):
            judge(machine, await AwsNitroTpmAttester(tpm, log).attest(BINDING))


async def test_an_index_that_was_left_behind_by_a_power_cut_is_made_anew() -> None:
    machine = Machine.make(Variant.AWS_NITRO_TPM)
    async with nsm(machine) as (fake, tpm, log):
        await tpm.nv_define(BUFFER_INDEX, 16, owner=True)
        judge(machine, await AwsNitroTpmAttester(tpm, log).attest(BINDING))
        assert fake.indices == {}


async def test_a_hypervisor_that_refuses_is_unavailable() -> None:
    machine = Machine.make(Variant.AWS_NITRO_TPM)
    async with nsm(machine, error="InvalidArgument") as (fake, tpm, log):
        with pytest.raises(Unavailable, match="InvalidArgument"):
            await AwsNitroTpmAttester(tpm, log).attest(BINDING)
        assert BUFFER_INDEX not in fake.indices
    for junk in (b"", b"\xff", b"\xa0", b"\x01"):
        with pytest.raises(FormatError, match="NSM answer"):
            parse_response(junk)


async def test_an_snp_instance_of_aws_has_its_chip_name_the_document() -> None:
    machine = Machine.make(Variant.AWS_SEV_SNP)
    chip = AmdWorld(key_name="ark 1").chip(1, kind=snp.SigningKey.VLEK)
    async with nsm(machine) as (_, tpm, log):
        attester = AwsSnpAttester(tpm, log, device=ChipDevice(chip), endorse=endorsed(chip))
        evidence = await attester.attest(BINDING)
        assert judge(machine, evidence).attester_id == await attester.attester_id()
        other = await AwsNitroTpmAttester(tpm, log).attest(BINDING)
    parts = decode.load(AwsSnpEvidence, evidence.data, what="test", max_bytes=1 << 20)
    document = json.loads(other.data)["document"]
    swapped = json.loads(evidence.data) | {"document": document}
    assert document != json.loads(evidence.data)["document"]
    assert parts.crl == chip.crl
    data = json.dumps(swapped, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises((Untrusted, FormatError)):
        judge(machine, Evidence(variant=Variant.AWS_SEV_SNP, data=data))


# --- Google


@contextlib.asynccontextmanager
async def gce(soft: SoftTpm, google: GoogleWorld, *, sized: bool = False):  # type: ignore[no-untyped-def]  # noqa: ANN201
    """Start a real TPM as GCE does: the log's registers, AK template and certificate in NV."""
    with tempfile.TemporaryDirectory(prefix="gce") as name:
        folder = Path(name)
        async with swtpm(folder) as socket, await Tpm.connect(socket) as tpm:
            await tpm.startup()
            for event in soft.log.events:
                digest = event.digest(soft.bank)
                assert digest is not None
                await tpm.extend(event.pcr, digest)
            handle, public = await tpm.create_primary_ak()
            await tpm.flush(handle)
            soft.key = public  # type: ignore[assignment] # only its certificate is made from it
            raw = AK_TEMPLATE.pack()
            template = len(raw).to_bytes(2, "big") + raw if sized else raw
            certificate = google.certify(_key(public)).public_bytes(Encoding.DER)
            for index, data in zip(AK_INDICES[0], (certificate, template), strict=True):
                await tpm.nv_define(index, len(data))
                await tpm.nv_write(index, data)
            (folder / "log").write_bytes(soft.log.pack())
            yield tpm, folder / "log"


def _key(public: Any) -> Any:
    from constellation.attestation.tpm.quote import public_key  # noqa: PLC0415 - one use

    return public_key(public)


@pytest.mark.parametrize("sized", [False, True])
async def test_an_instance_of_google_is_accepted(*, sized: bool) -> None:
    machine, google = Machine.make(Variant.GCP_SEV_ES), GoogleWorld(NOW)
    object.__setattr__(machine.verifier, "trust_roots", (google.root.der,))
    async with gce(machine.tpm, google, sized=sized) as (tpm, log):
        evidence = await GcpSevEsAttester(tpm, log).attest(BINDING)
        with_chain = json.loads(evidence.data)
        chain = base64.b64encode(google.intermediate.der).decode()
        with pytest.raises(Untrusted, match="was not given"):  # a made-up intermediate is not ours
            judge(machine, evidence)
        data = json.dumps(
            with_chain | {"ak_chain": [chain]}, sort_keys=True, separators=(",", ":")
        ).encode()
        result = judge(machine, Evidence(variant=Variant.GCP_SEV_ES, data=data))
        assert result.attester_id == await GcpSevEsAttester(tpm, log).attester_id()


async def test_an_snp_instance_of_google_has_its_chip_name_the_ak() -> None:
    machine, google = Machine.make(Variant.GCP_SEV_SNP), GoogleWorld(NOW)
    object.__setattr__(machine.verifier, "trust_roots", (google.root.der,))
    chip = AmdWorld(key_name="ark 1").chip(1)
    async with gce(machine.tpm, google) as (tpm, log):
        attester = GcpSnpAttester(tpm, log, device=ChipDevice(chip), endorse=endorsed(chip))
        evidence = await attester.attest(BINDING)
        fields = json.loads(evidence.data)
        fields["ak_chain"] = [base64.b64encode(google.intermediate.der).decode()]
        data = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
        result = judge(machine, Evidence(variant=Variant.GCP_SEV_SNP, data=data))
        assert result.attester_id == await attester.attester_id()


async def test_a_vtpm_without_googles_indices_is_none_of_google(tmp_path: Path) -> None:
    async with swtpm(tmp_path) as socket, await Tpm.connect(socket) as tpm:
        await tpm.startup()
        with pytest.raises(Unavailable, match="no certified AK"):
            await GcpSevEsAttester(tpm, tmp_path / "log").attest(BINDING)


# --- Azure


async def test_the_host_gives_certificates_and_amd_the_list(tmp_path: Path) -> None:
    world = AmdWorld()
    chip = world.chip()

    def pem(*ders: bytes) -> str:
        blocks = (base64.encodebytes(der).decode() for der in ders)
        return "".join(
            f"-----BEGIN CERTIFICATE-----\n{b}-----END CERTIFICATE-----\n" for b in blocks
        )

    given = {"vcekCert": pem(chip.vek), "certificateChain": pem(chip.intermediate, *world.roots)}
    async with origin_server() as server:
        server.files["/metadata/THIM/amd/certification"] = json.dumps(given).encode()
        server.files["/vcek/v1/Milan/crl"] = chip.crl or b""
        imds, kds = Imds(base_url=server.url), Kds(tmp_path, base_url=server.url)
        found = await ThimAndKds(imds, kds, now=lambda: NOW).endorsements()
        assert found == chip.endorsements()
        assert dict(server.requests)["/metadata/THIM/amd/certification"]["metadata"] == "true"
        for answer in (b"", b"[]", b"{}", b'{"vcekCert": 1}', b"x" * 70000):
            server.files["/metadata/THIM/amd/certification"] = answer
            with pytest.raises(FormatError):
                await imds.vcek()
        with pytest.raises(Unavailable, match="status"):
            await imds.td_quote(bytes(1024))
        with pytest.raises(ValueError, match="TDREPORT of 3 bytes"):
            await imds.td_quote(bytes(3))
    with pytest.raises(Unavailable):
        await imds.vcek()


async def test_an_azure_td_has_its_tdreport_quoted() -> None:
    machine = Machine.make(Variant.AZURE_TDX)
    parts = machine.fields(BINDING)

    class Tdx:
        async def td_quote(self, tdreport: bytes) -> bytes:
            assert tdreport == parts["hcl_report"][32 : 32 + 1024]
            return parts["td_quote"]

    class Vtpm:
        """What is read of a paravisor's TPM, over the machine's registers."""

        async def nv_read(self, index: int) -> bytes:
            assert index == HCL_REPORT_INDEX
            return parts["hcl_report"]

        async def read_public(self, handle: int) -> Any:
            assert handle == 0x81000003
            return machine.tpm.public

        async def read_pcrs(self, pcrs: tuple[int, ...], *, bank: Any) -> Any:
            assert bank is machine.tpm.bank
            return {n: machine.tpm.pcrs[n] for n in pcrs}

        async def quote(self, handle: int, *, qualifying_data: bytes, pcrs: Any, bank: Any) -> Any:
            assert (handle, bank) == (0x81000003, machine.tpm.bank)
            message = machine.tpm.quote(qualifying_data, pcrs=pcrs)
            return message, machine.tpm.sign(message)

    async def endorse(_quote: Any) -> Any:
        from constellation.attestation.tdx.endorsements import Collateral  # noqa: PLC0415

        return Collateral.parse(parts["collateral"])

    with tempfile.TemporaryDirectory() as name:
        log = Path(name) / "log"
        log.write_bytes(machine.tpm.log.pack())
        tpm: Any = Vtpm()
        imds: Any = Tdx()
        evidence = await AzureTdxAttester(tpm, log, imds=imds, endorse=endorse).attest(BINDING)
    judge(machine, evidence)


# --- the registry


def test_the_registry_has_an_attester_for_every_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    from constellation.attestation.snp import device  # noqa: PLC0415 - patched

    monkeypatch.setattr(device, "open_device", lambda: ChipDevice(AmdWorld().chip()))
    tpm: Any = object()
    devices = registry.NodeDevices(tpm=tpm, event_log=Path("/log"), cache=Path("/nowhere"))
    for variant in Variant:
        assert callable(registry.attester(variant, devices).attest)
    other: Any = "other"
    with pytest.raises(UserError, match="expected one of"):
        registry.attester(other, devices)


def test_a_chips_variant_on_another_machine_says_what_is_missing() -> None:
    tpm: Any = object()
    devices = registry.NodeDevices(tpm=tpm, event_log=Path("/log"), cache=Path("/nowhere"))
    with pytest.raises(Unavailable, match="sev-guest"):
        registry.attester(Variant.QEMU_SEV_SNP, devices)
