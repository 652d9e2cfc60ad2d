"""Which of our errors is a failed run of Terraform, and what can its user do about it?

The texts are those of Terraform's core and of the providers; where none fits, the run may be tried
again. Sources: Terraform, "State locking"; the providers' own messages as seen in runs.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from constellation.base.errors import Conflict, ConstellationError, Unavailable, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from constellation.providers.terraform.messages import Fault

__all__ = ["as_error"]

_SHOWN = 6
_CREDENTIALS = (
    "log in to the cloud again (the credentials are the environment's, as for the cloud's own "
    "command); the same command goes on"
)

_KNOWN: tuple[tuple[re.Pattern[str], type[ConstellationError], str], ...] = (
    # before the lock: Terraform reads the state while it takes its lock, and says both
    (
        re.compile(
            r"state snapshot was created by|unsupported state file format|"
            r"was created by a newer (provider|version)|newer provider version",
            re.IGNORECASE,
        ),
        Conflict,
        ("the state is of a newer Terraform or provider: use that one (terraform.program); "
        "nothing was changed"),
    ),
    (
        re.compile(r"acquiring the state lock|state lock", re.IGNORECASE),
        Conflict,
        ("another run works on these resources: wait for it. If there is none, it was killed: "
        "`terraform force-unlock` in constellation-terraform/ takes its lock away"),
    ),
    (
        re.compile(
            r"expired|InvalidClientTokenId|SignatureDoesNotMatch|AuthFailure|"
            r"no valid credential|InvalidAuthenticationToken|could not find default credentials|"
            r"Authentication failed|status code: 401",
            re.IGNORECASE,
        ),
        Unavailable,
        _CREDENTIALS,
    ),
    (
        re.compile(
            r"AccessDenied|UnauthorizedOperation|AuthorizationFailed|PERMISSION_DENIED|"
            r"status code: 403",
            re.IGNORECASE,
        ),
        UserError,
        "these credentials may not do that; the cloud's page in docs/how-to says what they need",
    ),
    (
        re.compile(r"LimitExceeded|quota|InsufficientInstanceCapacity", re.IGNORECASE),
        Unavailable,
        "ask the cloud for more of it, or take another zone or machine type",
    ),
    (
        re.compile(r"failed to query available provider|could not (retrieve|download)|Inconsistent",
                   re.IGNORECASE),
        Unavailable,
        ("without a way to the registry of providers, name a folder that has them: "
        "terraform.pluginFolder"),
    ),
)  # fmt: skip


def as_error(what: str, faults: Sequence[Fault], *, said: str, note: str = "") -> Exception:
    """Make one error of all faults; `said` is what there is without any, `note` what is left."""
    texts = list(dict.fromkeys(str(fault) for fault in faults)) or [said.strip()[-1500:]]
    shown = "; ".join(texts[:_SHOWN])
    if len(texts) > _SHOWN:
        shown += f"; and {len(texts) - _SHOWN} more"
    message = f"{what}: {shown}" + (f". {note}" if note else "")
    everything = " ".join((*texts, said))
    for pattern, kind, hint in _KNOWN:
        if pattern.search(everything):
            return kind(message, hint=hint)
    return Unavailable(message, hint="the same command again goes on where this one stopped")
