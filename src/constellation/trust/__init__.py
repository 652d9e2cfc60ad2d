"""Whose cluster it is and what it accepts: node document, cluster policy, artifact list; pure."""

__all__: list[str] = []
