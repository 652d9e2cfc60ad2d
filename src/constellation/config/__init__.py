"""The user's files: configuration, state, secrets' places, the lock between two runs."""

__all__: list[str] = []
