"""The steps from nothing to a running cluster, one module each; every one may be repeated."""

__all__: list[str] = []
