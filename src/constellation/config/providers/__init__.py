"""The provider blocks of constellation-conf.yaml, one module a provider."""

__all__: list[str] = []
