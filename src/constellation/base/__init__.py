"""Floor 1: errors, binary tables, decoding, secrets, files, processes, fetching. No domain here."""

__all__: list[str] = []
