"""EC2, autoscaling and load balancing as a node's calls need them, in this process.

Every request's signature is checked with botocore, which is not our code. The fake can ask for
pauses, forget a session, lag behind, and page as small as a test wants.

aws.refuse = [(503, "RequestLimitExceeded")]     # the next request is refused with that
aws.lag = 2                                      # a new machine is listed after two more looks
aws.lose = ["SetDesiredCapacity"]                # it is done, and its answer is lost
aws.quotas["L-1216C47A"] = 8                     # virtual CPUs; missing: not told
aws.forbidden = {"CreateVpc"}                    # the caller may not do that
"""

from __future__ import annotations

import base64
import contextlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["FakeAws", "Machine"]

UID = "constell-0a1b2c"
_SECRET, _SESSION = "s3cr3t", "session-1"


@dataclass
class Machine:
    """One machine; `looks` counts down until lists have it."""

    instance_id: str
    group: str
    role: str
    address: str
    state: str = "running"
    uid: str = UID
    looks: int = 0


@dataclass
class FakeAws:
    machines: dict[str, Machine] = field(default_factory=dict)
    wanted: dict[str, int] = field(default_factory=dict)
    most: int = 4
    page: int = 1000
    lag: int = 0
    refuse: list[tuple[int, str]] = field(default_factory=list)
    key_id: str = "AKIA1"
    targets: dict[str, set[str]] = field(default_factory=dict)
    draining: dict[str, int] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    terminated: list[str] = field(default_factory=list)
    me: str = ""
    session: str = "imds-1"
    user_data: bytes = b'{"node": "document"}'
    told: dict[str, str] = field(default_factory=dict)  # what metadata says instead, by path
    url: str = ""
    images: dict[str, dict[str, str]] = field(
        default_factory=lambda: {"ami-12c6146b": {"imageState": "available", "bootMode": "uefi"}}
    )
    offered: set[tuple[str, str]] = field(
        default_factory=lambda: {("m6a.xlarge", "eu-west-1a"), ("m6a.xlarge", "eu-west-1b")}
    )
    volumes: list[str] = field(default_factory=list)
    lose: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    quotas: dict[str, float] = field(
        default_factory=lambda: {"L-1216C47A": 64.0, "L-F678F1CE": 5.0, "L-0263D0A3": 5.0}
    )
    forbidden: set[str] = field(default_factory=set)
    dry_runs: set[str] = field(default_factory=set)
    dry_run_tags: dict[str, tuple[str, dict[str, str]]] = field(default_factory=dict)
    carries_out: bool = False
    others: list[tuple[str, int, str]] = field(default_factory=list)  # type, vCPUs, lifecycle
    vpcs: int = 1
    addresses: int = 0

    def environment(self) -> dict[str, str]:
        """Give a user's environment with credentials that are accepted."""
        return {
            "AWS_ACCESS_KEY_ID": self.key_id,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_SESSION_TOKEN": _SESSION,
        }

    def add(self, number: int, group: str, role: str, **more: object) -> Machine:
        machine = Machine(f"i-{number:017x}", group, role, f"10.42.0.{number % 250 + 1}", **more)  # type: ignore[arg-type] # fields by name
        self.machines[machine.instance_id] = machine
        self.wanted[group] = self.wanted.get(group, 0) + 1
        if role == "control-plane":
            self.targets.setdefault("arn:api", set()).add(machine.instance_id)
        return machine

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[FakeAws]:
        app = web.Application(client_max_size=1 << 20)
        app.router.add_post("/", self._query)
        app.router.add_put("/latest/api/token", self._token)
        app.router.add_get("/latest/{path:.*}", self._metadata)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _token(self, request: web.Request) -> web.Response:
        assert 1 <= int(request.headers["X-aws-ec2-metadata-token-ttl-seconds"]) <= 21600
        return web.Response(text=self.session)

    async def _metadata(self, request: web.Request) -> web.Response:
        if request.headers.get("X-aws-ec2-metadata-token") != self.session:
            return web.Response(status=401)
        machine = self.machines[self.me]
        tags = {
            "constellation-uid": machine.uid,
            "constellation-role": machine.role,
            "constellation-node-group": machine.group,
        }
        until = datetime.now(UTC) + timedelta(hours=6)
        answers = {
            "dynamic/instance-identity/document": json.dumps(
                {
                    "instanceId": machine.instance_id,
                    "privateIp": machine.address,
                    "region": "eu-west-1",
                    "availabilityZone": "eu-west-1a",
                    "accountId": "123456789012",
                    "instanceType": "m6a.xlarge",
                }
            ),
            "meta-data/iam/security-credentials/": "node-role",
            "meta-data/iam/security-credentials/node-role": json.dumps(
                {
                    "Code": "Success",
                    "AccessKeyId": self.key_id,
                    "SecretAccessKey": _SECRET,
                    "Token": _SESSION,
                    "Expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
                }
            ),
            "user-data": self.user_data.decode(),
            **{f"meta-data/tags/instance/{k}": v for k, v in tags.items()},
            **self.told,
        }
        text = answers.get(request.match_info["path"])
        return web.Response(status=404) if text is None else web.Response(text=text)

    async def _query(self, request: web.Request) -> web.Response:
        body = await request.read()
        target = request.headers.get("X-Amz-Target", "")
        if target:
            assert request.content_type == "application/x-amz-json-1.1"
            form = json.loads(body) | {"Action": target.rpartition(".")[2]}
        else:
            form = dict(parse_qsl(body.decode()))
        action = form["Action"]
        self.calls.append(action)
        if self.refuse:
            status, code = self.refuse.pop(0)
            return _error(status, code)
        if (fault := self._signed(request, body)) is not None:
            return _error(403, fault)
        if action in self.forbidden:
            return _error(403, "UnauthorizedOperation")
        if form.get("DryRun") == "true" and not self.carries_out:
            self.dry_runs.add(action)
            mark = "TagSpecification.1."
            numbers = [k for k in form if k.startswith(f"{mark}Tag.") and k.endswith(".Key")]
            tags = {form[k]: form[k.removesuffix("Key") + "Value"] for k in numbers}
            self.dry_run_tags[action] = (form[f"{mark}ResourceType"], tags)
            return _error(412, "DryRunOperation")
        answer = getattr(self, f"_{action}")(form)
        if action in self.lose:
            self.lose.remove(action)
            return _error(500, "InternalFailure")
        return answer if isinstance(answer, web.Response) else _xml(action, answer)

    def _signed(self, request: web.Request, body: bytes) -> str | None:
        shown = request.headers.get("Authorization", "")
        if f"Credential={self.key_id}/" not in shown:
            return "InvalidClientTokenId"
        service = shown.partition("Credential=")[2].split("/")[3]
        names = shown.partition("SignedHeaders=")[2].partition(",")[0].split(";")
        again = AWSRequest(
            method="POST",
            url=f"{self.url}/",
            data=body,
            headers={n: request.headers[n] for n in names if n not in ("host", "x-amz-date")},
        )
        again.context["timestamp"] = request.headers["X-Amz-Date"]
        again.headers["X-Amz-Date"] = request.headers["X-Amz-Date"]
        signer = SigV4Auth(Credentials(self.key_id, _SECRET, _SESSION), service, "eu-west-1")
        canonical = signer.canonical_request(again)
        signature = signer.signature(signer.string_to_sign(again, canonical), again)
        return None if shown.endswith(f"Signature={signature}") else "SignatureDoesNotMatch"

    def _CreateLaunchTemplate(self, _form: dict[str, str]) -> str:  # noqa: N802 - AWS' name
        return "<launchTemplate/>"

    def _GetServiceQuota(self, form: dict[str, str]) -> web.Response:  # noqa: N802
        value = self.quotas.get(form["QuotaCode"])
        if value is None:
            error = {"__type": "com.aws#NoSuchResourceException", "Message": "no such quota"}
            return web.json_response(error, status=400)
        return web.json_response({"Quota": {"QuotaCode": form["QuotaCode"], "Value": value}})

    def _DescribeVpcs(self, _form: dict[str, str]) -> str:  # noqa: N802 - AWS' name
        return f"<vpcSet>{'<item><vpcId>vpc-1</vpcId></item>' * self.vpcs}</vpcSet>"

    def _DescribeAddresses(self, _form: dict[str, str]) -> str:  # noqa: N802 - AWS' name
        items = "<item><publicIp>192.0.2.1</publicIp></item>" * self.addresses
        return f"<addressesSet>{items}</addressesSet>"

    def _everybodys(self) -> str:
        items = "".join(
            f"<item><instanceType>{kind}</instanceType><cpuOptions><coreCount>{n}</coreCount>"
            f"<threadsPerCore>1</threadsPerCore></cpuOptions>"
            + (f"<instanceLifecycle>{life}</instanceLifecycle>" if life else "")
            + "</item>"
            for kind, n, life in self.others
        )
        return f"<reservationSet><item><instancesSet>{items}</instancesSet></item></reservationSet>"

    def _DescribeInstances(self, form: dict[str, str]) -> str:  # noqa: N802 - AWS' name
        if form["Filter.1.Name"] == "instance-state-name":
            return self._everybodys()
        assert form["Filter.1.Name"] == "tag:constellation-uid"
        uid = form["Filter.1.Value.1"]
        states = {v for k, v in form.items() if k.startswith("Filter.2.Value.")}
        listed = []
        for machine in self.machines.values():
            if machine.uid == uid and machine.state in states:
                if machine.looks > 0:
                    machine.looks -= 1
                else:
                    listed.append(machine)
        start = int(form.get("NextToken", "0"))
        size = min(self.page, int(form["MaxResults"]))
        items = "".join(map(_machine, listed[start : start + size]))
        more = start + size < len(listed)
        token = f"<nextToken>{start + size}</nextToken>" if more else ""
        listing = f"<item><instancesSet>{items}</instancesSet></item>"
        return f"<reservationSet>{listing}</reservationSet>{token}"

    def _DescribeAutoScalingGroups(self, form: dict[str, str]) -> str:  # noqa: N802 - AWS' name
        group = form.get("Filters.member.2.Values.member.1", "")
        members = "".join(
            f"<member><AutoScalingGroupName>asg-{name}</AutoScalingGroupName><DesiredCapacity>{n}"
            f"</DesiredCapacity><MaxSize>{self.most}</MaxSize><TargetGroupARNs>"
            + "".join(
                f"<member>{arn}</member>" for arn in self.targets if name.startswith("control")
            )
            + "</TargetGroupARNs><Instances>"
            + "".join(
                f"<member><InstanceId>{m.instance_id}</InstanceId></member>"
                for m in self.machines.values()
                if m.group == name and m.state == "running"
            )
            + f"</Instances><Tags><member><Key>constellation-uid</Key><Value>{UID}</Value></member>"
            "</Tags></member>"
            for name, n in self.wanted.items()
            if group in ("", name)
        )
        return (
            "<DescribeAutoScalingGroupsResult><AutoScalingGroups>"
            f"{members}</AutoScalingGroups></DescribeAutoScalingGroupsResult>"
        )

    def _GetCallerIdentity(self, _form: dict[str, str]) -> str:  # noqa: N802 - AWS' name
        return "<GetCallerIdentityResult><Arn>arn:aws:iam::1:user/x</Arn></GetCallerIdentityResult>"

    def _DescribeImages(self, form: dict[str, str]) -> web.Response | str:  # noqa: N802
        if (image := self.images.get(form["ImageId.1"])) is None:
            return _error(400, "InvalidAMIID.NotFound")
        fields = "".join(f"<{k}>{v}</{k}>" for k, v in image.items())
        return f"<imagesSet><item>{fields}</item></imagesSet>"

    def _DescribeInstanceTypeOfferings(self, form: dict[str, str]) -> str:  # noqa: N802
        wanted = {v for k, v in form.items() if k.startswith("Filter.1.Value.")}
        items = "".join(
            f"<item><instanceType>{kind}</instanceType><location>{zone}</location></item>"
            for kind, zone in sorted(self.offered)
            if kind in wanted
        )
        return f"<instanceTypeOfferingSet>{items}</instanceTypeOfferingSet>"

    def _DescribeVolumes(self, _form: dict[str, str]) -> str:  # noqa: N802 - AWS' name
        items = "".join(
            f"<item><volumeId>{v}</volumeId><status>available</status></item>" for v in self.volumes
        )
        return f"<volumeSet>{items}</volumeSet>"

    def _GetConsoleOutput(self, form: dict[str, str]) -> str:  # noqa: N802 - AWS' name
        text = base64.b64encode(b"boot of " + form["InstanceId"].encode()).decode()
        return f"<output>{text}</output>"

    def _RegisterTargets(self, form: dict[str, str]) -> str:  # noqa: N802 - AWS' name
        ids = self.targets.setdefault(form["TargetGroupArn"], set())
        ids.add(form["Targets.member.1.Id"])
        return ""

    def _SetDesiredCapacity(self, form: dict[str, str]) -> str:  # noqa: N802 - AWS' name
        name = form["AutoScalingGroupName"].removeprefix("asg-")
        role = "control-plane" if name.startswith("control") else "worker"
        while self.wanted[name] < int(form["DesiredCapacity"]):
            self.add(len(self.machines) + 100, name, role, looks=self.lag)
        return ""

    def _TerminateInstanceInAutoScalingGroup(self, form: dict[str, str]) -> str:  # noqa: N802
        machine = self.machines[form["InstanceId"]]
        assert form["ShouldDecrementDesiredCapacity"] == "true"
        led = [arn for arn, ids in self.targets.items() if machine.instance_id in ids]
        assert not led, f"{machine.instance_id} is still a target of {led}"
        machine.state = "shutting-down"
        self.wanted[machine.group] -= 1
        self.terminated.append(machine.instance_id)
        return ""

    def _DeregisterTargets(self, form: dict[str, str]) -> web.Response | str:  # noqa: N802
        arn, instance_id = form["TargetGroupArn"], form["Targets.member.1.Id"]
        if arn in self.gone:
            self.targets.pop(arn, None)
            return _error(400, "TargetGroupNotFound")
        if instance_id in self.targets[arn]:
            self.targets[arn].discard(instance_id)
            self.draining[instance_id] = 2
        return ""

    def _DescribeTargetHealth(self, form: dict[str, str]) -> str:  # noqa: N802 - AWS' name
        left = self.draining.get(form["Targets.member.1.Id"], 0)
        self.draining[form["Targets.member.1.Id"]] = max(0, left - 1)
        state = "draining" if left else "unused"
        return (
            "<DescribeTargetHealthResult><TargetHealthDescriptions><member><TargetHealth><State>"
            f"{state}</State></TargetHealth></member></TargetHealthDescriptions>"
            "</DescribeTargetHealthResult>"
        )


def _machine(machine: Machine) -> str:
    tags = {
        "constellation-uid": machine.uid,
        "constellation-role": machine.role,
        "constellation-node-group": machine.group,
        "Name": "",
    }
    marks = "".join(f"<item><key>{k}</key><value>{v}</value></item>" for k, v in tags.items())
    return (
        f"<item><instanceId>{machine.instance_id}</instanceId><instanceState><code>16</code><name>"
        f"{machine.state}</name></instanceState><privateIpAddress>{machine.address}"
        f"</privateIpAddress><tagSet>{marks}</tagSet><newerField/></item>"
    )


def _xml(action: str, content: str) -> web.Response:
    text = f'<{action}Response xmlns="http://ec2.amazonaws.com/doc/">{content}</{action}Response>'
    return web.Response(text=text, content_type="text/xml")


def _error(status: int, code: str) -> web.Response:
    error = f"<Error><Code>{code}</Code><Message>as asked</Message></Error>"
    text = f"<Response><Errors>{error}</Errors></Response>"
    return web.Response(status=status, text=text, headers={"Retry-After": "0"})
