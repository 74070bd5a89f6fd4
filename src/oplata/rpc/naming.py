"""Names: snake_case in Python, camelCase on the wire."""

from __future__ import annotations

import re

_WORD_START = re.compile(r"(?<=[a-z0-9])_+([a-zA-Z0-9])")
_HUMP = re.compile(r"(?<=[a-z0-9])([A-Z])")


def camel(name: str) -> str:
    """``update_status`` -> ``updateStatus``.

    Leading and trailing underscores stay, so ``from_`` keeps its meaning apart.
    """
    return _WORD_START.sub(lambda match: match.group(1).upper(), name)


def snake(name: str) -> str:
    """``updateStatus`` -> ``update_status``."""
    return _HUMP.sub(lambda match: "_" + match.group(1).lower(), name)


def camel_path(path: str) -> str:
    """``orders.update_status`` -> ``orders.updateStatus``."""
    return ".".join(camel(part) for part in path.split("."))
