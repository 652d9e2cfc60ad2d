"""OpenStack: what a node reads, and groups of servers that the operator keeps itself."""

__all__: list[str] = []
