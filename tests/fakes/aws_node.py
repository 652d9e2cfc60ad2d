"""What a node's programs ask AWS, on that node: `python -m tests.fakes.aws_node VERB…`.

Verbs: `self`, `peers`, `document`, `create=GROUP`, `delete=ID`, `list`. Prints a JSON list.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
from typing import Any

from constellation.base.errors import ConstellationError
from constellation.providers.aws.metadata import AwsMetadata
from constellation.providers.aws.node_groups import AwsNodeGroups


async def answer(verb: str, argument: str) -> Any:
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    metadata = AwsMetadata(endpoint=endpoint)
    groups = AwsNodeGroups(endpoint=endpoint, made_s=20, pause_s=0.1)
    match verb:
        case "self":
            return dataclasses.asdict(await metadata.self_())
        case "peers":
            return [dataclasses.asdict(i) for i in await metadata.peers()]
        case "document":
            return (await metadata.user_data()).decode()
        case "create":
            return dataclasses.asdict(await groups.create(argument))
        case "delete":
            return await groups.delete(argument)
        case _:
            return [dataclasses.asdict(i) for i in await groups.list_instances()]


async def answers(words: list[str]) -> list[Any]:
    found = []
    for word in words:
        verb, _, argument = word.partition("=")
        try:
            found.append(await answer(verb, argument))
        except ConstellationError as error:
            found.append({"error": type(error).__name__, "message": str(error)})
    return found


def main() -> None:
    sys.stdout.write(json.dumps(asyncio.run(answers(sys.argv[1:]))))


if __name__ == "__main__":
    main()
