"""Every setting, read once. Nothing else in oplata reads the environment; rooms are given plain values.

A setting is looked for, in this order, among the values given in Python, the environment (``OPLATA_PORT``), a ``.env``
file in the working directory, and ``oplata.toml`` there (``port = 8080``; another file is named by ``OPLATA_CONFIG``).

A secret may lie in a file of its own, which ``OPLATA_TERMINAL_PASSWORD_FILE`` and the like name.

One file per group of settings; ``model.py`` makes one value of them, ``sources.py`` looks for what they are.
"""

from __future__ import annotations

from oplata.settings.model import PASSWORD_SETTINGS, Settings, chosen
from oplata.settings.values import Terminal

__all__ = ["PASSWORD_SETTINGS", "Settings", "Terminal", "chosen"]
