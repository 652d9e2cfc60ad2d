"""The test machine as the steps see it: programs run in it and in its nodes, each by a deadline."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.vm.qemu import Done, Machine

CLONE = "/srv/content/clone"
WORK = "/root/cluster"
SHORT_S, BOOT_S, LONG_S = 300.0, 1200.0, 3600.0
ATTEMPTS, UNAVAILABLE = 6, 6  # exit code 6: try again (design, section 4)

# what runs, what the control plane's containers say, and the end of its journal: of an init that
# did not come to its end
_WHY = f"""
uptime
ps -eo pid,etimes,times,rss,args --sort=-times | head -n 14 | cut -c 1-160
nsenter -t PID -a sh -c 'ls /var/log/pods/*/*; tail -n 12 /var/log/pods/*/*/*.log' | cut -c 1-300
tail -n 25 {WORK}/constellation-cluster.log | cut -c 1-300
"""


class Failed(Exception):
    """A step's demand does not hold; says expected and found."""


@dataclass(kw_only=True)
class World:
    """The machine, and what earlier steps learned."""

    machine: Machine
    end_s: float
    """When the present step has to have ended, by the monotonic clock."""
    before: dict[str, Any] = field(default_factory=dict)

    async def run(
        self,
        *argv: str,
        timeout_s: float = SHORT_S,
        stdin: str = "",
        on_line: Callable[[str], None] = lambda _: None,
    ) -> Done:
        """Run a program in the machine, whatever its end; never beyond the step's."""
        left = self.end_s - time.monotonic()
        if left <= 0:
            raise Failed(f"no time is left for {' '.join(argv)[:200]!r}")
        return await self.machine.run(
            *argv, timeout_s=min(timeout_s, left), stdin=stdin.encode(), on_line=on_line
        )

    async def shell(self, script: str, *, timeout_s: float = SHORT_S) -> str:
        """Run a script that has to end well; give its output."""
        done = await self.run("sh", "-euc", script, timeout_s=timeout_s)
        if done.code != 0:
            raise Failed(f"{script[:200]!r} ended with {done.code}: {done.text[-2000:]}")
        return done.text

    async def tool(self, *arguments: str) -> str:
        """Run the clone's `constellation`, which has to end well; gives its output."""
        code, text = await self.attempt(*arguments)
        if code != 0:
            raise Failed(f"constellation {' '.join(arguments)} ended with {code}: {text[-1000:]}")
        return text

    async def until_done(self, *arguments: str) -> int:
        """Run the tool again for as long as it says "unavailable, try again" (6); gives how often.

        Raises:
            Failed: another end, or `ATTEMPTS` without one.
        """
        for attempt in range(1, ATTEMPTS + 1):
            code, text = await self.attempt(*arguments)
            if code == 0:
                return attempt
            pid = (await self.nodes())["control-plane"]
            print((await self.run("sh", "-c", _WHY.replace("PID", str(pid)))).text, flush=True)
            if code != UNAVAILABLE:
                break
        raise Failed(f"constellation {' '.join(arguments)} ended with {code}: {text[-1000:]}")

    async def attempt(self, *arguments: str, timeout_s: float = LONG_S) -> tuple[int, str]:
        """Run the clone's `constellation`, printing its progress as it comes; code and output."""
        done = await self.run(
            f"{CLONE}/constellation", "-C", WORK, *arguments,
            timeout_s=timeout_s, on_line=lambda line: print(f"  {line}", flush=True),
        )  # fmt: skip
        return done.code, done.text

    async def nodes(self) -> dict[str, int]:
        """Give the nodes by role, with the pid of each one's init."""
        record = json.loads(await self.shell("cat /var/lib/constellation/*/state.json"))
        return {node["role"]: node["init"]["pid"] for node in record["nodes"]}

    async def booted(self, role: str) -> str:
        """Wait until a node's systemd has started all it starts; gives what it says then."""
        pid = (await self.nodes())[role]
        look = f"nsenter -t {pid} -a systemctl is-system-running 2>/dev/null || true"
        wait = f"while [ $n -gt 0 ]; do s=$({look}); case $s in running|degraded) break; esac"
        return await self.shell(
            f"n={int(BOOT_S / 5)}; {wait}; sleep 5; n=$((n - 1)); done; echo $s", timeout_s=BOOT_S
        )

    async def in_node(
        self, role: str, script: str, *, timeout_s: float = SHORT_S, stdin: str = ""
    ) -> Done:
        """Run a script in a node, as one of its services: in its cgroup and namespaces."""
        pid = (await self.nodes())[role]
        words = ("systemd-run", "--wait", "--pipe", "--quiet", "--collect", "sh", "-euc", script)
        return await self.run(
            "nsenter", "-t", str(pid), "-a", *words, timeout_s=timeout_s, stdin=stdin
        )

    async def demand(
        self, role: str, script: str, *, timeout_s: float = SHORT_S, stdin: str = ""
    ) -> str:
        """Run a script in a node that has to end well; give its output."""
        done = await self.in_node(role, script, timeout_s=timeout_s, stdin=stdin)
        if done.code != 0:
            raise Failed(f"in {role}: {script[:200]!r} ended with {done.code}: {done.text[-2000:]}")
        return done.text


def equal(what: str, found: object, expected: object) -> None:
    """Demand a value."""
    if found != expected:
        raise Failed(f"{what}: expected {expected!r}, found {found!r}")
