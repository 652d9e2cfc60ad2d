"""In a roll-out two images are accepted, and none that somebody puts together from both.

Real quotes: the machine boots one image with the other one's command line.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING

import pytest

from constellation.atls.binding import channel_binding
from constellation.attestation.platforms import local_vtpm
from constellation.attestation.platforms.local_vtpm_log import predicted_pcrs
from constellation.base.errors import Rejected
from constellation.trust.appraisal import node_verifier
from constellation.trust.cluster_policy import AcceptedRelease, parse_policy
from tests.fakes.cluster_machines import IMAGE, LINE, OS_RELEASE, OURS, machine
from tests.fakes.tpm import NOW

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.attestation.model import AttestationResult
    from tests.fakes.cluster_machines import Node

OLD, NEXT = hashlib.sha256(b"old").digest(), hashlib.sha256(b"next").digest()


def release(name: str, image: bytes, line: str) -> AcceptedRelease:
    _, extends = local_vtpm.firmware_log(image, line, OS_RELEASE)
    return AcceptedRelease(
        name=name,
        not_before=0,
        not_after=None,
        image_digest=image,
        reference={number: (value,) for number, value in predicted_pcrs(extends).items()},
    )


async def judged(node: Node, *releases: AcceptedRelease) -> AttestationResult:
    policy = dataclasses.replace(parse_policy(OURS.policy().policy), releases=releases)
    parts = {"exporter": bytes(32), "spki_digest": bytes(32), "peer_nonce": bytes(32)}
    evidence = await node.attest(purpose="join-client", **parts)
    binding = channel_binding(purpose="join-client", variant=node.variant, **parts)
    verifier = node_verifier(policy, OURS.document, joined=False, now=NOW)
    return verifier.appraise(evidence, binding=binding, now=NOW)


async def test_registers_of_two_accepted_images_are_no_image(tmp_path: Path) -> None:
    own = release("0.2.0", IMAGE, LINE)
    kernel = release("0.2.0", IMAGE, f"{LINE} other")
    line = release("0.3.0", NEXT, LINE)
    async with machine(tmp_path / "node", given=False) as node:
        with pytest.raises(Rejected, match="of no one accepted image"):
            await judged(node, kernel, line)
        assert await judged(node, kernel, line, own), "the control case: it is one of them"
        over = dataclasses.replace(own, not_after=int(NOW.timestamp()))
        with pytest.raises(Rejected, match="of no one accepted image"):
            await judged(node, kernel, line, over)
