"""Package lists, apt's answer, the lock of wheels, and the list of units."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.base.errors import FormatError, Unavailable
from constellation.image import packages, programs, wheels
from constellation.image.machine_files import require_same
from constellation.image.sources import os_folder

DIGEST = "ab" * 32


def test_apts_answer_gives_name_version_and_digest() -> None:
    line = f"'http://mirror/pool/s/s_1%253a2-1_amd64.deb' s_1%3a2-1_amd64.deb 12 SHA256:{DIGEST}\n"
    (deb,) = packages.parse_uris(line)
    assert (deb.name, deb.version, deb.sha256.hex()) == ("s", "1:2-1", DIGEST)


def test_a_package_without_a_strong_digest_is_refused() -> None:
    with pytest.raises(FormatError):
        packages.parse_uris("'http://mirror/s_1_amd64.deb' s_1_amd64.deb 12 MD5Sum:00\n")


def test_the_digest_of_a_set_changes_with_each_package() -> None:
    line = "'http://m/{0}_1_amd64.deb' {0}_1_amd64.deb 12 SHA256:{1}\n"
    one = packages.parse_uris(line.format("s", DIGEST))
    other = packages.parse_uris(line.format("s", "00" * 32))
    sets = [packages.PackageSet(debs=d, folder=os_folder(), time=0) for d in (one, other)]
    assert packages.digest(sets[0]) != packages.digest(sets[1])


@given(st.text(max_size=80))
def test_junk_is_a_format_error_and_nothing_else(text: str) -> None:
    for parse in (packages.parse_uris, packages.parse_names, wheels.parse_lock):
        try:
            parse(text)
        except FormatError:
            continue


def test_a_pin_without_a_digest_is_refused() -> None:
    with pytest.raises(FormatError, match="no pin with a digest"):
        wheels.parse_lock("grpclib==0.4.9\n")


def test_the_lists_of_the_node_image_can_be_read() -> None:
    folder = os_folder()
    assert "systemd" in packages.parse_names((folder / "packages.txt").read_text())
    assert "swtpm" in packages.parse_names((folder / "tools.txt").read_text())
    pins = wheels.parse_lock((folder / "requirements-node.lock").read_text())
    assert {"cryptography", "grpclib", "lightkube"} <= {name for name, _version in pins}


def test_the_units_that_start_at_boot_are_the_four_in_seams() -> None:
    units = tuple(p.name for p in (os_folder() / "units").iterdir())
    entries = programs.system_entries((os_folder() / "units.txt").read_text(), units=units)
    enabled = {e.path.rpartition("/")[2] for e in entries if ".wants/" in e.path}
    wanted = ("measure", "agent", "diskmapper", "bootstrapper")
    assert enabled == {f"constellation-{name}.service" for name in wanted}


def test_no_unit_that_starts_at_boot_gives_up() -> None:
    # systemd.unit(5): five starts in ten seconds, and a unit stays off until the next power-on
    for folder in ("units", "machine/units"):
        for path in (os_folder() / folder).glob("*.service"):
            assert "\nStartLimitIntervalSec=0\n" in path.read_text(), path.name


def test_on_azure_and_nowhere_else_a_vm_says_that_it_is_ready_and_no_unit_waits_for_that() -> None:
    folder, name = os_folder(), "constellation-ready.service"
    unit = (folder / "machine/units" / name).read_text().splitlines()
    assert "ConditionKernelCommandLine=constellation.provider=azure" in unit
    assert "ExecStart=/usr/lib/constellation/bin/diskmapper ready" in unit
    assert {"Restart=on-failure", "Type=exec"} <= set(unit)
    assert f"enable {name} multi-user.target" in (folder / "machine/units.txt").read_text()
    others = [p for f in ("units", "machine/units") for p in (folder / f).iterdir()]
    assert [p.name for p in others if name in p.read_text()] == []


def test_a_clouds_image_leaves_the_network_cards_below_another_device_alone() -> None:
    # systemd.network(5): of all files that match a device the first by name counts
    shared = os_folder() / "machine/tree/usr/lib/systemd/network/80-constellation.network"
    assert "Type=ether" in shared.read_text()
    folder = os_folder() / "machine/azure"
    (entry,) = [e for e in programs.file_entries(folder, below="") if e.path.endswith(".network")]
    assert entry.path.rpartition("/")[0] == "usr/lib/systemd/network"
    assert entry.path.rpartition("/")[2] < shared.name
    match, _, link = entry.data.decode().partition("[Link]")
    assert {"mlx5_core", "mana"} <= set(match.split("Driver=")[1].split())
    assert "Unmanaged=yes" in link.split()


def test_a_vm_starts_the_same_programs_and_its_own_devices_and_masks_the_same_measurers() -> None:
    folder = os_folder()
    units = tuple(p.name for f in ("units", "machine/units") for p in (folder / f).iterdir())
    local, more = (folder / "units.txt").read_text(), (folder / "machine/units.txt").read_text()

    def started_and_masked(text: str) -> tuple[set[str], set[str]]:
        entries = programs.system_entries(text, units=units)
        return (
            {e.path.rpartition("/")[2] for e in entries if ".wants/" in e.path},
            {e.path.rpartition("/")[2] for e in entries if e.link == "/dev/null"},
        )

    started, masked = started_and_masked(local + more)
    local_started, local_masked = started_and_masked(local)
    assert local_started < started
    assert {"systemd-udevd.service", "constellation-host.service"} < started
    # registers 11 and 15 are ours on a VM as well (design, section 6)
    measuring = {u for u in local_masked if u.startswith(("systemd-pcr", "systemd-tpm2"))}
    assert {"systemd-pcrmachine.service", "systemd-pcrphase.service", "systemd-pcrfs@.service",
            "systemd-pcrfs-root.service"} < measuring <= masked  # fmt: skip
    nobody_logs_in = {u for u in local_masked if "getty" in u or "shell" in u or "rescue" in u}
    assert nobody_logs_in <= masked


def test_a_package_of_both_lists_is_one_file() -> None:
    def deb(name: str, digest: bytes) -> packages.Deb:
        return packages.Deb(name=name, version="1", sha256=digest, file=f"{name}.deb")

    base = (deb("systemd", bytes(32)), deb("bash", bytes(32)))
    require_same((deb("systemd", bytes(32)), deb("udev", b"u" * 32)), base)
    with pytest.raises(Unavailable, match="package systemd"):
        require_same((deb("systemd", b"s" * 32),), base)


def test_only_what_is_masked_is_unmasked() -> None:
    assert programs.system_entries("mask a.service\nunmask a.service\n", units=()) == ()
    with pytest.raises(FormatError, match="line 1"):
        programs.system_entries("unmask a.service\n", units=())


def test_an_enabled_unit_of_ours_must_be_there() -> None:
    with pytest.raises(FormatError, match="line 1"):
        programs.system_entries("enable constellation-x.service basic.target", units=())


def test_a_launcher_is_isolated_from_the_environment() -> None:
    text = programs.launcher("agent", python=("/p",)).decode()
    assert text.startswith("#!/usr/bin/python3 -ISB\n")
    assert "constellation.services.agent.main" in text
