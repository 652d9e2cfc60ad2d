"""People in front of a terminal: commands, progress, exit codes."""

__all__: list[str] = []
