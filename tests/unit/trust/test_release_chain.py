"""From the pinned root to the statement: what each attack of TUF's list runs into; controls."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from constellation.base.errors import (
    Conflict,
    ConstellationError,
    FormatError,
    Untrusted,
    UserError,
)
from constellation.crypto.signing import generate_key, spki

pytest.importorskip("tuf", reason="this environment is older than requirements.lock")
from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import Metadata
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from constellation.releases.repository import RoleKeys
from constellation.releases.site import Site, fetch_chain
from constellation.trust.release import dump_release, sign_release
from constellation.trust.release_chain import (
    BOUNDS,
    NOTHING_SEEN,
    dump_chain,
    parse_chain,
    verify_chain,
)
from tests.fakes.release_world import NOW, Maker, release

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from constellation.trust.release_chain import ReleaseChain, SeenVersions, VerifiedRelease

LATER = timedelta(days=1)


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(folder=tmp_path / "site").create().publish(release("0.1.0"), release("0.2.0"))


def verify(
    maker: Maker,
    chain: ReleaseChain,
    *,
    seen: SeenVersions = NOTHING_SEEN,
    now: datetime | None = None,
) -> VerifiedRelease:
    return verify_chain(chain, pinned_root=maker.pinned_root, seen=seen, now=now or maker.now)


def test_a_chain_leads_to_the_newest_release_or_to_the_one_asked_for(maker: Maker) -> None:
    newest = verify(maker, parse_chain(dump_chain(maker.chain())))
    assert newest.release == release("0.2.0")
    assert newest.offered == ("0.2.0", "0.1.0")
    assert verify(maker, maker.chain("0.1.0")).release == release("0.1.0")


def test_the_reference_client_of_tuf_accepts_the_repository_too(
    maker: Maker, tmp_path: Path
) -> None:
    class Folder(FetcherInterface):
        def _fetch(self, url: str) -> Iterator[bytes]:
            path = maker.folder / url.removeprefix("site:/")
            if not path.exists():
                raise DownloadHTTPError("absent", 404)
            yield path.read_bytes()

    # its clock is the real one
    maker.now = datetime.now(UTC)
    maker.repository().renew()
    (tmp_path / "client").mkdir()
    client = Updater(
        metadata_dir=str(tmp_path / "client"),
        metadata_base_url="site:/metadata/",
        target_base_url="site:/targets/",
        target_dir=str(tmp_path / "client"),
        fetcher=Folder(),
        bootstrap=maker.pinned_root,
    )
    client.refresh()
    found = client.get_targetinfo("release-0.2.0.json")
    assert found is not None
    path = client.download_target(found)
    assert dump_release(release("0.2.0")) == (tmp_path / path).read_bytes()


# wrong signatures


@pytest.mark.parametrize("part", ["timestamp", "snapshot", "targets"])
def test_metadata_that_somebody_else_signed_is_untrusted(maker: Maker, part: str) -> None:
    chain = maker.chain()
    metadata = json.loads(getattr(chain, part))
    genuine = metadata["signatures"][0]["sig"]
    metadata["signatures"][0]["sig"] = genuine[:-2] + ("01" if genuine.endswith("00") else "00")
    forged = json.dumps(metadata).encode()
    with pytest.raises(Untrusted, match=r"wrong signature|not of the same state"):
        verify(maker, dataclasses.replace(chain, **{part: forged}))
    verify(maker, chain)


def test_a_repository_of_another_maker_is_untrusted(maker: Maker, tmp_path: Path) -> None:
    stranger = Maker(folder=tmp_path / "other").create().publish(release("0.3.0"))
    with pytest.raises(Untrusted, match="timestamp has a wrong signature"):
        verify(maker, stranger.chain())


def test_a_statement_that_only_an_online_key_signed_is_untrusted(maker: Maker) -> None:
    data = dump_release(release("0.3.0"))
    with pytest.raises(Untrusted, match="release: wrong signature"):
        maker.repository().publish(data, sign_release(data, maker.online_key))
    maker.repository().publish(data, sign_release(data, maker.release_key))


def test_an_own_statement_in_place_of_the_named_one_is_untrusted(maker: Maker) -> None:
    chain = maker.chain()
    data = dump_release(release("0.2.0", created=1))
    other = dataclasses.replace(
        chain.statements[0], release=data, signature=sign_release(data, maker.release_key)
    )
    with pytest.raises(Untrusted, match=r"release-0.2.0.json is not the file that targets names"):
        verify(maker, dataclasses.replace(chain, statements=(other,)))


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_any_flipped_bit_is_refused_and_never_a_bug(maker: Maker, data: st.DataObject) -> None:
    chain = maker.chain()
    part = data.draw(st.sampled_from(["timestamp", "snapshot", "targets", "statements"]))
    value = chain.statements[0].release if part == "statements" else getattr(chain, part)
    changed = bytearray(value)
    position = data.draw(st.integers(0, len(changed) - 1))
    changed[position] ^= 1 << data.draw(st.integers(0, 7))
    if part == "statements":
        statement = dataclasses.replace(chain.statements[0], release=bytes(changed))
        chain = dataclasses.replace(chain, statements=(statement,))
    else:
        chain = dataclasses.replace(chain, **{part: bytes(changed)})
    try:
        found = verify(maker, chain)
    except (Untrusted, FormatError):
        return
    # white space and the like: the content is what was signed
    assert found.release == release("0.2.0")


# freshness


@pytest.mark.parametrize("part", ["root", "timestamp", "snapshot", "targets"])
def test_expired_metadata_is_untrusted(maker: Maker, part: str) -> None:
    maker.lifetimes = dict.fromkeys(maker.lifetimes, timedelta(days=30)) | {part: LATER}
    maker.repository().renew()
    verify(maker, maker.chain(), now=NOW + LATER - timedelta(seconds=1))
    with pytest.raises(Untrusted, match=f"{part} version . expired on 2026-11-02 12:00 UTC"):
        verify(maker, maker.chain(), now=NOW + LATER)


def test_an_expired_pinned_root_does_not_matter_where_a_fresh_one_follows(maker: Maker) -> None:
    maker.now = NOW + timedelta(days=400)
    maker.repository().renew()
    verify(maker, maker.chain())


def test_older_metadata_than_seen_is_a_replay(maker: Maker) -> None:
    old = maker.chain()
    seen = verify(maker, old).seen
    verify(maker, old, seen=seen)
    maker.publish(release("0.3.0"))
    seen = verify(maker, maker.chain(), seen=seen).seen
    with pytest.raises(Untrusted, match="timestamp was replayed: found version 3, version 4"):
        verify(maker, old, seen=seen)


@pytest.mark.parametrize("part", ["root", "timestamp", "snapshot", "targets"])
def test_each_kind_of_metadata_is_compared_with_what_was_seen(maker: Maker, part: str) -> None:
    chain = maker.chain()
    seen = verify(maker, chain).seen
    newer = dataclasses.replace(seen, **{part: getattr(seen, part) + 1})
    with pytest.raises(Untrusted, match=f"{part} was replayed"):
        verify(maker, chain, seen=newer)
    verify(maker, chain, seen=seen)


@pytest.mark.parametrize("part", ["snapshot", "targets", "statements"])
def test_parts_of_different_states_do_not_mix(maker: Maker, part: str) -> None:
    old = maker.chain()
    maker.publish(release("0.3.0"))
    new = maker.chain()
    mixed = dataclasses.replace(new, **{part: getattr(old, part)})
    with pytest.raises(Untrusted, match=r"not of the same state|newest release, 0.3.0, is missing"):
        verify(maker, mixed)
    verify(maker, new)


def test_the_newest_statement_cannot_be_held_back(maker: Maker) -> None:
    """Who hides it hides what it withdraws."""
    maker.publish(release("0.2.1", withdrawn=("0.2.0",)))
    chain = maker.chain("0.2.0")
    assert verify(maker, chain).withdrawn == ("0.2.0",)
    with pytest.raises(Untrusted, match=r"newest release, 0.2.1, is missing"):
        verify(maker, dataclasses.replace(chain, statements=chain.statements[:1]))


# roots


def _spkis(*keys: object) -> tuple[bytes, ...]:
    return tuple(spki(key.public_key()) for key in keys)  # type: ignore[attr-defined] # keys


def test_root_keys_can_be_replaced_and_the_old_pin_still_leads_there(maker: Maker) -> None:
    old = maker.root_keys
    new = [generate_key() for _ in range(3)]
    maker.repository(*old, *new, maker.release_key, maker.online_key).rotate(
        "root", RoleKeys(public_keys=_spkis(*new), threshold=2)
    )
    maker.root_keys = new
    maker.publish(release("0.3.0"))
    found = verify(maker, maker.chain())
    assert (found.release.version, found.seen.root) == ("0.3.0", 2)


def test_a_root_that_too_few_of_the_old_keys_signed_is_untrusted(maker: Maker) -> None:
    maker.repository().rotate("root", RoleKeys(public_keys=_spkis(*maker.root_keys), threshold=2))
    chain = maker.chain()
    verify(maker, chain)
    metadata = json.loads(chain.roots[0])
    metadata["signatures"] = metadata["signatures"][:1]
    short = dataclasses.replace(chain, roots=(json.dumps(metadata).encode(),))
    with pytest.raises(Untrusted, match="1 of the 2 that the one before it demands"):
        verify(maker, short)


def test_a_thief_of_one_root_key_cannot_name_own_keys(maker: Maker) -> None:
    thief = generate_key()
    stolen = maker.root_keys[0]
    root = Metadata.from_bytes(maker.pinned_root)
    repository = maker.repository(stolen, thief)
    with pytest.raises(UserError, match="needs 2 of its 3 keys, 1 were given"):
        repository.rotate("root", RoleKeys(public_keys=_spkis(thief), threshold=1))
    # the same without the help of our own program
    other = Maker(folder=maker.folder.parent / "thief", root_keys=[thief, stolen, generate_key()])
    other.create().repository().renew()
    forged = next(iter(other.folder.glob("metadata/2.root.json"))).read_bytes()
    assert root.signed.version == 1
    with pytest.raises(Untrusted, match="1 of the 2 that the one before it demands"):
        verify(maker, dataclasses.replace(maker.chain(), roots=(forged,)))


def test_a_root_version_cannot_be_skipped(maker: Maker) -> None:
    maker.repository().renew()
    maker.repository().renew()
    chain = maker.chain()
    verify(maker, chain)
    with pytest.raises(Untrusted, match="do not follow each other"):
        verify(maker, dataclasses.replace(chain, roots=chain.roots[1:]))


def test_a_new_release_key_takes_over_and_the_old_one_is_worth_nothing(maker: Maker) -> None:
    old, new = maker.release_key, generate_key()
    maker.repository(*maker.root_keys, new, maker.online_key).rotate(
        "targets", RoleKeys(public_keys=_spkis(new), threshold=1)
    )
    data = dump_release(release("0.3.0"))
    with pytest.raises(Untrusted, match="release: wrong signature"):
        maker.repository(new, maker.online_key).publish(data, sign_release(data, old))


def test_new_online_keys_take_back_what_a_thief_counted_up(maker: Maker) -> None:
    """TUF 5.3.11: recovery from a fast-forward attack."""
    seen = verify(maker, maker.chain()).seen
    far = dataclasses.replace(seen, timestamp=10_000, snapshot=10_000)
    with pytest.raises(Untrusted, match="replayed"):
        verify(maker, maker.chain(), seen=far)
    new = generate_key()
    for role in ("snapshot", "timestamp"):
        maker.repository(*maker.root_keys, maker.release_key, maker.online_key, new).rotate(
            role, RoleKeys(public_keys=_spkis(new), threshold=1)
        )
    verify(maker, maker.chain(), seen=far)


def test_another_kind_of_key_is_refused_before_it_is_used(maker: Maker) -> None:
    metadata = json.loads(maker.pinned_root)
    for key in metadata["signed"]["keys"].values():
        key["keytype"], key["scheme"] = "rsa", "pgp+rsa-pkcsv1.5"
    with pytest.raises(FormatError, match=r"want ECDSA P-256|cannot be read"):
        verify_chain(
            maker.chain(),
            pinned_root=json.dumps(metadata).encode(),
            seen=NOTHING_SEEN,
            now=NOW,
        )


# data without end, junk, and the publisher's own mistakes


@pytest.mark.parametrize("part", ["timestamp", "snapshot", "targets"])
def test_data_without_end_is_neither_fetched_nor_parsed(maker: Maker, part: str) -> None:
    chain = maker.chain()
    longer = getattr(chain, part) + b" " * BOUNDS[part]
    with pytest.raises(FormatError, match="are read"):
        verify(maker, dataclasses.replace(chain, **{part: longer}))
    (path,) = (
        maker.folder.glob(f"metadata/3.{part}.json")
        if part != "timestamp"
        else (maker.folder / "metadata/timestamp.json",)
    )
    path.write_bytes(longer)
    with pytest.raises(FormatError, match="more than"):
        maker.chain()


def test_roots_without_end_are_not_followed(maker: Maker) -> None:
    for number in range(2, 70):
        (maker.folder / f"metadata/{number}.root.json").write_bytes(maker.pinned_root)
    with pytest.raises(FormatError, match="more than 64 roots"):
        maker.chain()


@given(st.binary(max_size=300))
def test_junk_is_no_chain(junk: bytes) -> None:
    with pytest.raises(FormatError):
        parse_chain(junk)


@pytest.mark.parametrize("junk", [b"", b"{}", b"[]", b"null", b'{"signed":{},"signatures":[]}'])
@pytest.mark.parametrize("part", ["timestamp", "snapshot", "targets"])
def test_junk_in_place_of_metadata_is_refused(maker: Maker, part: str, junk: bytes) -> None:
    with pytest.raises(ConstellationError):
        verify(maker, dataclasses.replace(maker.chain(), **{part: junk}))


def test_a_published_version_is_never_replaced(maker: Maker) -> None:
    data = dump_release(release("0.2.0", created=1))
    with pytest.raises(Conflict, match="published already"):
        maker.repository().publish(data, sign_release(data, maker.release_key))


def test_publishing_without_the_key_of_a_role_names_the_role(maker: Maker) -> None:
    data = dump_release(release("0.3.0"))
    with pytest.raises(UserError, match="role 'snapshot' needs 1 of its 1 keys, 0 were given"):
        maker.repository(maker.release_key).publish(data, sign_release(data, maker.release_key))


def test_an_unknown_release_is_named_with_those_there_are(maker: Maker) -> None:
    site = Site(place=str(maker.folder))
    with pytest.raises(UserError, match=r"has no release 9.9.9") as caught:
        asyncio.run(fetch_chain(site, pinned_root=maker.pinned_root, version="9.9.9"))
    assert caught.value.hint == "it has 0.2.0, 0.1.0"
