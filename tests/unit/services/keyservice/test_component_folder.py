"""What the cloud's own components may read on a control plane, and when they may read nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import FormatError, Unavailable
from constellation.base.secret import Secret
from constellation.providers.openstack.access import Access, Components, dump_access
from constellation.services.keyservice.component_folder import ComponentFolder

if TYPE_CHECKING:
    from pathlib import Path

THEIRS = Components(
    credential_id="components",
    credential_secret=Secret(b"open sesame"),
    subnet_id="subnet",
    floating_network_id="external",
)


def access(components: Components | None = THEIRS, *, certificates: str = "") -> Secret:
    return dump_access(
        Access(
            auth_url="https://keystone.example/v3",
            region="RegionOne",
            credential_id="operator",
            credential_secret=Secret(b"the operator's"),
            certificates=certificates,
            uid="constell-ab12cd",
            groups={},
            components=components,
        )
    )


def with_secret(secret: bytes) -> Components:
    return Components(
        credential_id="components",
        credential_secret=Secret(secret),
        subnet_id="subnet",
        floating_network_id="",
    )


def there(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in folder.iterdir()} if folder.is_dir() else {}


@pytest.fixture
def shown(tmp_path: Path) -> ComponentFolder:
    return ComponentFolder(folder=tmp_path / "cloud", group=os.getgid())


def openstack() -> str:
    return "openstack"


def test_the_components_read_their_credential_and_none_of_the_operators(
    shown: ComponentFolder, tmp_path: Path
) -> None:
    shown.follow(access(certificates="-----BEGIN"), provider=openstack)
    found = there(tmp_path / "cloud")
    assert found["cluster"] == "constell-ab12cd"
    assert found["authorities.pem"] == "-----BEGIN"
    assert found["cloud.conf"] == (
        "[Global]\n"
        'auth-url = "https://keystone.example/v3"\n'
        'application-credential-id = "components"\n'
        'application-credential-secret = "open sesame"\n'
        'region = "RegionOne"\n'
        "[LoadBalancer]\n"
        'subnet-id = "subnet"\n'
        'floating-network-id = "external"\n'
    )
    assert "operator" not in "".join(found.values())


def test_one_group_reads_and_nobody_else(shown: ComponentFolder, tmp_path: Path) -> None:
    shown.follow(access(), provider=openstack)
    folder = tmp_path / "cloud"
    assert folder.stat().st_mode & 0o7777 == 0o2750
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o640
        assert path.stat().st_gid == os.getgid()


def test_another_credential_takes_the_place_of_the_first(
    shown: ComponentFolder, tmp_path: Path
) -> None:
    shown.follow(access(), provider=openstack)
    shown.follow(access(with_secret(b"another")), provider=openstack)
    conf = there(tmp_path / "cloud")["cloud.conf"]
    assert '"another"' in conf
    assert "open sesame" not in conf
    # no network for floating addresses: it must not look for one itself
    assert 'internal-lb = "true"' in conf


@pytest.mark.parametrize("last", [None, access(None)])
def test_without_components_nothing_is_left(
    shown: ComponentFolder, tmp_path: Path, last: Secret | None
) -> None:
    shown.follow(last, provider=openstack)
    assert not (tmp_path / "cloud").exists()
    shown.follow(access(), provider=openstack)
    shown.follow(last, provider=openstack)
    assert not (tmp_path / "cloud").exists()


def test_what_an_earlier_start_wrote_is_brought_up_to_date(tmp_path: Path) -> None:
    for secret in (b"first", b"second"):
        ComponentFolder(folder=tmp_path / "cloud", group=os.getgid()).follow(
            access(with_secret(secret)), provider=openstack
        )
    assert '"second"' in there(tmp_path / "cloud")["cloud.conf"]


@pytest.mark.parametrize(
    ("secret", "written"),
    [(b'a"b\\c', r'"a\"b\\c"'), ("ä#;=]".encode(), '"ä#;=]"')],
)
def test_a_secret_with_signs_is_written_as_the_program_reads_it(
    shown: ComponentFolder, tmp_path: Path, secret: bytes, written: str
) -> None:
    shown.follow(access(with_secret(secret)), provider=openstack)
    lines = there(tmp_path / "cloud")["cloud.conf"].splitlines()
    assert f"application-credential-secret = {written}" in lines


@pytest.mark.parametrize("secret", [b"a\nauth-url = x", b"a\x00", b"\x1b[0m", b"x" * 5000, b"\xff"])
def test_a_secret_that_would_be_more_than_one_line_is_refused(
    shown: ComponentFolder, tmp_path: Path, secret: bytes
) -> None:
    shown.follow(access(), provider=openstack)
    before = there(tmp_path / "cloud")
    with pytest.raises(FormatError, match="application-credential-secret cannot stand"):
        shown.follow(access(with_secret(secret)), provider=openstack)
    assert there(tmp_path / "cloud") == before


def test_no_other_provider_has_them(shown: ComponentFolder, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="take no access"):
        shown.follow(access(), provider=lambda: "aws")
    assert not (tmp_path / "cloud").exists()


def test_no_room_is_said_and_tried_again(tmp_path: Path) -> None:
    (tmp_path / "cloud").write_text("a file where the folder should be")
    shown = ComponentFolder(folder=tmp_path / "cloud", group=os.getgid())
    with pytest.raises(Unavailable):
        shown.follow(access(), provider=openstack)
    (tmp_path / "cloud").unlink()
    shown.follow(access(), provider=openstack)
    assert there(tmp_path / "cloud")
