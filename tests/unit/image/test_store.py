"""When an image in the cache is believed, and what happens to one that is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import FormatError, Untrusted
from constellation.base.progress import silent
from constellation.crypto import signing
from constellation.image import manifest as manifests
from constellation.image.measure.local import fold, predict
from constellation.image.release_key import ensure_development_key
from constellation.image.store import SQUASHFS, Plan, ensure, load

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NAME = "test-image"
KEY = signing.generate_key()
PUBLIC = signing.spki(KEY.public_key())


class Maker:
    def __init__(self) -> None:
        self.made = 0

    async def make(self, output: Path, version: str) -> Mapping[int, tuple[bytes, ...]]:
        self.made += 1
        output.write_bytes(b"image " + version.encode())
        return predict(bytes(32), version.encode())

    def plan(self) -> Plan:
        return Plan(
            name=NAME,
            file=SQUASHFS,
            key="00" * 32,
            time=12,
            debs=(),
            wheels=(),
            make=self.make,
        )


async def test_an_image_is_built_once(tmp_path: Path) -> None:
    maker = Maker()
    first = await ensure(maker.plan(), tmp_path, KEY, silent)
    second = await ensure(maker.plan(), tmp_path, KEY, silent)
    assert first == second
    assert maker.made == 1
    assert sorted(first.reference_values) == [0, 4, 7, 9, 11]


@pytest.mark.parametrize("name", ["image.squashfs", "manifest.json", "manifest.json.sig"])
async def test_a_flipped_bit_is_refused_and_the_image_built_again(
    tmp_path: Path, name: str
) -> None:
    maker = Maker()
    image = await ensure(maker.plan(), tmp_path, KEY, silent)
    path = image.path.parent / name
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(Untrusted):
        load(image.path.parent, public_key_der=PUBLIC, name=NAME)
    seen: list[str] = []
    await ensure(maker.plan(), tmp_path, KEY, lambda p: seen.append(p.detail))
    assert maker.made == 2
    assert any("refused" in detail for detail in seen)


async def test_another_key_or_another_name_is_refused(tmp_path: Path) -> None:
    image = await ensure(Maker().plan(), tmp_path, KEY, silent)
    other = signing.spki(signing.generate_key().public_key())
    with pytest.raises(Untrusted):
        load(image.path.parent, public_key_der=other, name=NAME)
    with pytest.raises(Untrusted):
        load(image.path.parent, public_key_der=PUBLIC, name="another")


def test_the_development_key_is_made_once_and_for_the_user_alone(tmp_path: Path) -> None:
    first = ensure_development_key(tmp_path)
    path = tmp_path / "keys/release-development.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    assert ensure_development_key(tmp_path).private_numbers() == first.private_numbers()


def test_prediction_has_two_values_where_the_command_line_counts() -> None:
    values = predict(bytes(32), b"ID=x\n")
    assert {pcr: len(v) for pcr, v in values.items()} == {0: 1, 4: 1, 7: 1, 9: 2, 11: 2}
    other = predict(b"\1" + bytes(31), b"ID=x\n")
    assert [pcr for pcr in values if values[pcr] != other[pcr]] == [4]


def test_folding_extends_from_zero() -> None:
    assert fold(((4, bytes(32)),))[4].hex().startswith("f5a5fd42d16a2030")


def stated(values: dict[int, tuple[str, ...]]) -> manifests.Manifest:
    return manifests.Manifest(
        name=NAME,
        version="1",
        sha256="00" * 32,
        size_bytes=1,
        build_time=2,
        debs=(manifests.Content(name="a", version="1", sha256="11" * 32),),
        wheels=(),
        reference_values=values,
    )


@pytest.mark.parametrize(
    "values",
    [
        {4: ("22" * 48,), 9: ("22" * 32,)},
        {4: ("22" * 48, "22" * 32)},
        {4: ("22" * 20,)},
        {4: ("zz" * 48,)},
    ],
)
def test_values_of_two_banks_or_of_none_are_refused(values: dict[int, tuple[str, ...]]) -> None:
    data = manifests.dump(stated(values))
    signature = manifests.sign(data, KEY, name=NAME)
    with pytest.raises(FormatError, match="manifest: reference value"):
        manifests.verify(data, signature, public_key_der=PUBLIC, name=NAME)


@pytest.mark.parametrize("size", [32, 48])
def test_the_manifest_survives_its_canonical_form(size: int) -> None:
    manifest = stated({4: ("22" * size,)})
    data = manifests.dump(manifest)
    signature = manifests.sign(data, KEY, name=NAME)
    assert manifests.verify(data, signature, public_key_der=PUBLIC, name=NAME) == manifest
