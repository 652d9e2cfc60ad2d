"""`image build`, and what a release takes of it: what is refused before anything is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("tuf", reason="this environment is older than requirements.lock")
from constellation.attestation.model import Variant
from constellation.base import decode
from constellation.base.errors import FormatError, UserError
from constellation.cli.releases import read_node_image
from constellation.image.development_release import release_of
from constellation.image.flavours import flavour_of
from constellation.image.manifest import Manifest
from constellation.image.statement import launch_note, parse_launch, state_image
from constellation.image.store import NodeImage
from constellation.trust.release import dump_release, parse_release
from tests.cli.test_transcripts import run
from tests.fakes.release_world import release

if TYPE_CHECKING:
    from pathlib import Path

VALUE = "ab" * 48


def built(folder: Path, name: str, *, digits: int, sha256: str = "11" * 32) -> NodeImage:
    manifest = Manifest(
        name=name,
        version="0.1.0+x",
        sha256=sha256,
        size_bytes=7,
        build_time=1000,
        debs=(),
        wheels=(),
        reference_values=dict.fromkeys((4, 9, 11), ("cd" * (digits // 2),)),
    )
    return NodeImage(path=folder, manifest_path=folder, manifest=manifest, release_public_key=b"")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("gcp", "--attestation", "gcp-tdx"), "no image for VMs of gcp with gcp-tdx is built"),
        (("aws", "--attestation", "azure-tdx"), "no image for VMs of aws with azure-tdx is built"),
        (("aws", "--attestation", "sgx"), "expected a variant, found 'sgx'"),
        (("aws", "--launch", f"mr_td={VALUE}"), "expected CLAIM=96 hexadecimal digits"),
        (("aws", "--release-root", "gone"), "gone: cannot be read"),
    ],
)
def test_what_is_not_built_is_said_before_anything_is(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    done = run(tmp_path, "image", "build", *words, "--to", "out")
    assert done.returncode == 3
    assert said in done.stderr
    assert not (tmp_path / "out").exists()


def test_launch_values_are_those_of_the_variant_and_whole() -> None:
    snp = flavour_of("azure", Variant.AZURE_SEV_SNP)
    words = (f"measurement={VALUE}", f"id_key_digest={VALUE}", "measurement=" + "01" * 48)
    assert parse_launch(words, snp) == {
        "measurement": (VALUE, "01" * 48),
        "id_key_digest": (VALUE,),
    }
    for word in (f"mr_td={VALUE}", "measurement=ab", f"measurement={VALUE.upper()}", VALUE):
        with pytest.raises(UserError):
            parse_launch((word,), snp)
    with pytest.raises(UserError, match="CLAIM"):
        parse_launch((f"measurement={VALUE}",), flavour_of("aws", Variant.AWS_NITRO_TPM))


def test_an_image_whose_release_accepts_nobody_is_said_to_be_one() -> None:
    snp, nitro = flavour_of("azure"), flavour_of("aws", Variant.AWS_NITRO_TPM)
    assert "(measurement or id_key_digest): no cluster accepts azure-sev-snp" in launch_note(
        snp, {}
    )
    assert launch_note(snp, {"id_key_digest": (VALUE,)}) == launch_note(nitro, {}) == ""


def test_a_release_states_images_of_clouds_beside_its_own(tmp_path: Path) -> None:
    flavour = flavour_of("aws")
    image = built(tmp_path, "constellation-node-aws", digits=96)
    stated = state_image(
        image,
        provider=flavour.provider,
        variant=flavour.variant,
        launch={"measurement": (VALUE,)},
    )
    path, whole = tmp_path / "statement.json", release("0.2.0")
    path.write_bytes(decode.dump(stated) + b"\n")
    made = release_of(
        "0.2.0",
        image=built(tmp_path, "constellation-node-local", digits=64),
        services=built(tmp_path, "services", digits=64, sha256=whole.services_bundle),
        kubernetes=whole.kubernetes,
        created=1,
        more=(read_node_image(path),),
    )
    read = parse_release(dump_release(made))
    found = read.image(provider="aws", variant=Variant.AWS_SEV_SNP)
    assert found == stated
    assert found.reference[0].launch == {"measurement": (VALUE,)}


def test_a_statement_that_is_none_stops_the_release(tmp_path: Path) -> None:
    (tmp_path / "junk").write_text("{}")
    with pytest.raises(FormatError):
        read_node_image(tmp_path / "junk")
    for name, said in (("junk", "junk"), ("gone", "cannot be read")):
        words = ("release", "create", "out", "--version", "0.2.0", "--node-image", name)
        done = run(tmp_path, *words)
        assert done.returncode == 3
        assert said in done.stderr
    assert not (tmp_path / "out").exists()
