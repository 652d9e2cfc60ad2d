"""What ruamel.yaml raises for text that is no YAML: its own errors, and some that escape from it.

`+_` is taken for a number and read past its end (IndexError); a date that is none is a ValueError.
"""

from __future__ import annotations

from ruamel.yaml.error import YAMLError

__all__ = ["NOT_YAML"]

NOT_YAML = (YAMLError, UnicodeDecodeError, ValueError, LookupError, RecursionError)
