"""The verbs, one module a group of them; each imports what it needs when it runs."""

from constellation.cli.commands.about import completion, version
from constellation.cli.commands.config import config
from constellation.cli.commands.inspect import recover, status, verify
from constellation.cli.commands.lifecycle import apply, create, init, terminate

__all__ = ["ALL"]

ALL = (config, create, init, apply, status, verify, recover, terminate, version, completion)
