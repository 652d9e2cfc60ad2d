"""See the modules; each answers one question."""

__all__: list[str] = []
