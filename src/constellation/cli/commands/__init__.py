"""The verbs, one module a group of them; each imports what it needs when it runs."""

from constellation.cli.commands.about import completion, version
from constellation.cli.commands.artifacts import artifacts
from constellation.cli.commands.config import config
from constellation.cli.commands.evidence import evidence
from constellation.cli.commands.iam import iam
from constellation.cli.commands.image import image
from constellation.cli.commands.inspect import recover, status, verify
from constellation.cli.commands.lifecycle import apply, create, init, terminate
from constellation.cli.commands.log import log
from constellation.cli.commands.mini import mini
from constellation.cli.commands.release import release
from constellation.cli.commands.scale import scale
from constellation.cli.commands.upgrade import upgrade

__all__ = ["ALL"]

ALL = (
    *(mini, config, create, init, apply, status, verify, recover, upgrade, scale, log, terminate),
    iam,
    *(evidence, artifacts, image, release, version, completion),
)
