"""The technology that GCE's firmware names counts only where the event's digest covers it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from constellation.attestation.google.technology import Technology, technology
from constellation.attestation.tpm.eventlog import EventLog
from constellation.attestation.tpm.structures import Alg
from constellation.base.errors import Untrusted
from tests.vectors import evidence

ITEM = evidence.items("gcp")["attest-gce-cos-85-no-nonce"]
LOG = EventLog.parse(evidence.read("gcp", ITEM, "TCG event log"))


def test_a_published_log_names_its_technology() -> None:
    assert technology(LOG, bank=Alg.SHA256) is Technology.AMD_SEV


def test_data_that_its_digest_does_not_cover_says_nothing() -> None:
    (index,) = [i for i, e in enumerate(LOG.events) if e.data.startswith(b"GCE NonHostInfo")]
    event = LOG.events[index]
    forged = replace(event, data=event.data[:16] + b"\4" + event.data[17:])
    log = replace(LOG, events=(*LOG.events[:index], forged, *LOG.events[index + 1 :]))
    with pytest.raises(Untrusted, match="does not hash to its digest"):
        technology(log, bank=Alg.SHA256)
