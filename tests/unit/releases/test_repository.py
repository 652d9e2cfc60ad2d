"""What the publisher's own program refuses to publish."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import Conflict
from tests.fakes.release_world import Maker, release

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(folder=tmp_path / "site").create()


def test_what_was_withdrawn_stays_withdrawn(maker: Maker) -> None:
    """Clients see the newest statement: what it does not name again would be good again."""
    maker.publish(release("0.2.0"))
    maker.publish(release("0.3.0", withdrawn=("0.2.0",)))
    before = sorted(maker.folder.rglob("*"))
    with pytest.raises(Conflict, match=r"would bring back 0\.2\.0, which 0\.3\.0") as refused:
        maker.publish(release("0.4.0"))
    assert "--withdraw 0.2.0" in refused.value.hint
    assert sorted(maker.folder.rglob("*")) == before, "nothing was written"
    with pytest.raises(Conflict, match="is published already"):
        maker.publish(release("0.3.0"))
    maker.publish(release("0.4.0", withdrawn=("0.2.0", "0.3.0")))
    maker.publish(release("0.3.1"))  # an older line goes on: 0.4.0 still speaks


def test_an_older_release_withdraws_nothing(maker: Maker) -> None:
    maker.publish(release("0.3.0"))
    with pytest.raises(Conflict, match=r"0\.3\.0 is newer and does not: nobody would hear of it"):
        maker.publish(release("0.2.5", withdrawn=("0.2.4",)))
    maker.publish(release("0.3.1", withdrawn=("0.2.4",)))
    maker.publish(release("0.2.5", withdrawn=("0.2.4",)))
