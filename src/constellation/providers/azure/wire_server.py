"""Azure's wire server: a machine of a generalized image says that it was set up.

Azure waits for that word before it counts a machine as made, and calls it failed if it does not
come. The report carries nothing but what the goal state said: incarnation, container, instance, and
"Ready". Nothing that is read here is used for anything else; each part is checked before it is
written into the report, so that an answer adds no element to it.
Source: Microsoft, "Creating generalized images without a provisioning agent", generic steps.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from constellation.base import rest
from constellation.base.errors import FormatError
from constellation.providers.elements import parse_xml

if TYPE_CHECKING:
    from constellation.providers.elements import Xml

__all__ = ["WIRE_SERVER_URL", "GoalState", "WireServer", "parse_goal_state", "ready"]

_ADDRESS: Final = "168.63.129.16"
"""The same for every machine of every region ("What is IP address 168.63.129.16?")."""

WIRE_SERVER_URL: Final = f"http://{_ADDRESS}"
_GOAL_STATE: Final = "/machine?comp=goalstate"
_HEALTH: Final = "/machine?comp=health"
_HEADERS: Final = {"x-ms-version": "2012-11-30", "x-ms-agent-name": "constellation"}
_TIMEOUT_S = 10.0
_MAX_BYTES = 64 * 1024

_INCARNATION: Final = re.compile(r"[0-9]{1,10}", re.ASCII)
_CONTAINER: Final = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
# an id, a point, the machine's name: that of a scale set's machine has an underscore
_INSTANCE: Final = re.compile(r"[A-Za-z0-9._-]{1,256}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GoalState:
    """Which state of which machine a report is about: digits, a GUID, an id with a name."""

    incarnation: str
    container_id: str
    instance_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WireServer:
    """The server at 168.63.129.16, port 80: plain HTTP, to this machine's own host."""

    url: str = WIRE_SERVER_URL

    async def report_ready(self) -> None:
        """Ask for the goal state, and say that this machine has reached it.

        Raises:
            FormatError: the goal state is none.
            Unavailable, Conflict: no answer, or one that says no; a later call may succeed.
        """
        goal = parse_goal_state(await self._send("GET", _GOAL_STATE, body=None))
        await self._send("POST", _HEALTH, body=ready(goal))

    async def _send(self, method: str, path: str, *, body: bytes | None) -> bytes:
        kind = {} if body is None else {"Content-Type": "text/xml;charset=utf-8"}
        answer = await rest.send(
            method,
            f"{self.url}{path}",
            headers=_HEADERS | kind,
            body=body,
            timeout_s=_TIMEOUT_S,
            max_bytes=_MAX_BYTES,
            plain_too=_ADDRESS,
        )
        return rest.accept(answer, what=f"wire server: {method} {path}").body


def parse_goal_state(data: bytes) -> GoalState:
    """Read the three parts that a report needs. Raises FormatError."""
    goal = parse_xml(data, what="wire server: goal state")
    return GoalState(
        incarnation=_checked(goal, "Incarnation", _INCARNATION),
        container_id=_checked(goal, "Container/ContainerId", _CONTAINER),
        instance_id=_checked(goal, "Container/RoleInstanceList/RoleInstance/InstanceId", _INSTANCE),
    )


def ready(goal: GoalState) -> bytes:
    """Give the report: every part is of letters, digits, and `.`, `_`, `-`."""
    return (
        '<?xml version="1.0" encoding="utf-8"?>'
        f"<Health><GoalStateIncarnation>{goal.incarnation}</GoalStateIncarnation>"
        f"<Container><ContainerId>{goal.container_id}</ContainerId>"
        f"<RoleInstanceList><Role><InstanceId>{goal.instance_id}</InstanceId>"
        "<Health><State>Ready</State></Health>"
        "</Role></RoleInstanceList></Container></Health>"
    ).encode("ascii")


def _checked(goal: Xml, path: str, grammar: re.Pattern[str]) -> str:
    text, leaf = goal.text(path), goal.find(path)
    if leaf is None or len(leaf.element) or not grammar.fullmatch(text):
        raise FormatError(f"{goal.where}/{path}: {text[:40]!r} is none")
    return text
