"""Azure: what a node asks its metadata service and Azure Resource Manager."""

__all__: list[str] = []
