"""The engine on the workstation: what a cluster should be, what it is, and the steps in between."""

__all__: list[str] = []
