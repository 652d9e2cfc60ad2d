"""Azure's wire server, by "Creating generalized images without a provisioning agent".

wire = FakeWireServer(); async with wire.serving(): …
wire.moves = 1                    # the goal state is another before the next report: it is refused
wire.goal_state = b"…"            # a hostile one, in place of what the machine's would be
wire.reports                      # instance ids of which Ready was taken

The Linux agent's fake servers answer 410 for a container that is not (any more) this machine's.
"""

from __future__ import annotations

from xml.etree import ElementTree as ET

from aiohttp import web

from tests.fakes.rest_service import Refusal, Request, RestService

__all__ = ["CONTAINER", "INSTANCE", "FakeWireServer"]

CONTAINER = "7b324f53-983a-43bc-b919-1775d6077608"
INSTANCE = "fbb84507-46cd-4f4e-bd78-a2edaa9d059b._constell-ab12cd-worker-default_0"
_VERSION = "2012-11-30"


class FakeWireServer(RestService):
    """One machine's; it takes a report about the goal state that it has now, and no other."""

    def __init__(self) -> None:
        super().__init__()
        self.incarnation, self.moves = 1, 0
        self.goal_state: bytes | None = None
        self.reports: list[str] = []
        self.route("GET", "/machine", self._goal_state)
        self.route("POST", "/machine", self._health)

    def check(self, request: Request) -> None:
        if request.headers.get("x-ms-version") != _VERSION:
            raise Refusal(400, "The value for one of the HTTP headers is not in the correct format")

    def _goal_state(self, request: Request) -> web.Response:
        if request.query != {"comp": "goalstate"}:
            raise Refusal(400, "no such component")
        made = _xml(self.incarnation) if self.goal_state is None else self.goal_state
        return web.Response(body=made, content_type="text/xml", charset="utf-8")

    def _health(self, request: Request) -> web.Response:
        if request.query != {"comp": "health"}:
            raise Refusal(400, "no such component")
        if request.headers.get("Content-Type") != "text/xml;charset=utf-8":
            raise Refusal(415, "want XML")
        if self.moves:
            self.moves, self.incarnation = self.moves - 1, self.incarnation + 1
        health = ET.fromstring(request.body)  # noqa: S314 - our own client's, in a test
        role = health.find("Container/RoleInstanceList/Role")
        if health.tag != "Health" or role is None or role.findtext("Health/State") != "Ready":
            raise Refusal(400, "no report")
        said = (
            health.findtext("GoalStateIncarnation"),
            health.findtext("Container/ContainerId"),
            role.findtext("InstanceId"),
        )
        if said != (str(self.incarnation), CONTAINER, INSTANCE):
            raise Refusal(410, "Gone")
        self.reports.append(INSTANCE)
        return web.Response(status=200)


def _xml(incarnation: int) -> bytes:
    # with the byte order mark with which the real one begins
    return f"""\ufeff<?xml version="1.0" encoding="utf-8"?>
<GoalState xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:noNamespaceSchemaLocation="g">
  <Version>{_VERSION}</Version>
  <Incarnation>{incarnation}</Incarnation>
  <Machine><ExpectedState>Started</ExpectedState></Machine>
  <Container>
    <ContainerId>{CONTAINER}</ContainerId>
    <RoleInstanceList>
      <RoleInstance>
        <InstanceId>{INSTANCE}</InstanceId>
        <State>Started</State>
      </RoleInstance>
    </RoleInstanceList>
  </Container>
</GoalState>
""".encode()
