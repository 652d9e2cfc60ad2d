"""Google Cloud: what a node asks its metadata server and the Compute Engine API."""

__all__: list[str] = []
