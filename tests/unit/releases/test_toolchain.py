from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.base.progress import silent
from constellation.releases.toolchain import build_environment, ensure_toolchain
from tests.fakes.toolchain import WHEEL, install_toolchain

if TYPE_CHECKING:
    from pathlib import Path

USER = {
    "HTTPS_PROXY": "http://proxy.example:3128",
    "GOPROXY": "https://modules.example",
    "SSL_CERT_FILE": "/etc/ssl/own.pem",
    "NO_PROXY": "",
    "GOFLAGS": "-mod=mod",
    "GOROOT": "/usr/local/go",
    "GOTOOLCHAIN": "go1.99.0",
    "GOAMD64": "v4",
    "CGO_ENABLED": "1",
    "HOME": "/home/somebody",
    "LD_PRELOAD": "/somewhere/evil.so",
    "AWS_SECRET_ACCESS_KEY": "secret",
}


def test_a_build_gets_nothing_of_the_user_but_proxies_and_certificates(tmp_path: Path) -> None:
    environment = build_environment(tmp_path / "go", cache=tmp_path, user=USER)
    assert {name for name, value in environment.items() if USER.get(name) == value} == {
        "HTTPS_PROXY",
        "GOPROXY",
        "SSL_CERT_FILE",
    }
    assert "LD_PRELOAD" not in environment
    assert "AWS_SECRET_ACCESS_KEY" not in environment


def test_a_build_uses_the_pinned_toolchain_and_no_settings_of_others(tmp_path: Path) -> None:
    environment = build_environment(tmp_path / "go", cache=tmp_path, user=USER)
    wanted = {
        "GOTOOLCHAIN": "local",
        "GOENV": "off",
        "GOWORK": "off",
        "GOFLAGS": "",
        "GOAMD64": "v1",
        "CGO_ENABLED": "0",
        "GOROOT": str(tmp_path / "go"),
    }
    assert wanted.items() <= environment.items()
    assert environment["PATH"].startswith(str(tmp_path / "go/bin"))


async def test_a_toolchain_that_is_there_is_used(tmp_path: Path) -> None:
    install_toolchain(tmp_path)
    go = await ensure_toolchain(WHEEL, cache=tmp_path, report=silent)
    assert go.go.is_file()
    assert go.environment["GOCACHE"] == str(tmp_path / "go/build")
