"""Starting anew when a file changes, for development."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import oplata
from oplata.errors import SettingsError

SETTINGS_FILES = frozenset({"oplata.toml", ".env"})
DEBOUNCE_MS = 300


async def changes() -> AsyncGenerator[str, None]:
    """The name of a Python file or a settings file that changed: here or below, or in oplata itself.

    Raises ``SettingsError`` where the package that watches files is not installed.
    """
    try:
        from watchfiles import Change, PythonFilter, awatch
    except ImportError:
        raise SettingsError(
            "--reload needs the package that watches files. Install it: pip install 'oplata[reload]'"
        ) from None

    class Ours(PythonFilter):
        """Python files and the files of settings; not what lies in .venv, .git and their like."""

        def __call__(self, change: Change, path: str) -> bool:
            return super().__call__(change, path) or Path(path).name in SETTINGS_FILES

    roots = dict.fromkeys((Path.cwd(), Path(oplata.__file__).parent))
    async for seen in awatch(*roots, watch_filter=Ours(), debounce=DEBOUNCE_MS, stop_event=None):
        yield Path(sorted(path for _, path in seen)[0]).name
