"""``--app module:name``: the shop's own functions, found from the working directory."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from oplata.errors import OplataError, SettingsError

if TYPE_CHECKING:
    from oplata.worker.handlers import Handlers

app_option = click.option(
    "--app", metavar="MODULE:NAME", help="Your Handlers, seen from this directory, such as shop:app."
)


def load_handlers(target: str) -> Handlers:
    """The ``Handlers`` of this name in this module. Raises ``SettingsError``, which says what to mend."""
    from oplata.worker.handlers import Handlers

    module_name, _, name = target.partition(":")
    if not module_name or not name or not all(part.isidentifier() for part in module_name.split(".")):
        raise SettingsError(f"--app {target} is not of the form module:name, such as shop:app for `app` in shop.py.")
    module = _imported(module_name)
    found: Any = getattr(module, name, None)
    others = [each for each, value in vars(module).items() if isinstance(value, Handlers)]
    if found is None:
        near = difflib.get_close_matches(name, others, n=1) or others[:1]
        mend = f"Did you mean --app {module_name}:{near[0]}?" if near else f"Write `{name} = oplata.Handlers()` there."
        raise SettingsError(f"--app {target}: the module {module_name} has no {name}. {mend}")
    if not isinstance(found, Handlers):
        raise SettingsError(
            f"--app {target}: {name} is of the type {type(found).__name__}. It has to be an oplata.Handlers()."
        )
    if not found:
        raise SettingsError(
            f"--app {target}: no function is registered there. Write @{name}.on('paid') above an async function."
        )
    return found


def _imported(name: str) -> ModuleType:
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except OplataError as error:
        # A slip that we know of: a status that is none, a function that is not async.
        raise SettingsError(f"The module {name} cannot be imported: {error}") from error
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise SettingsError(
                f"There is no module {error.name} in {here}. Run oplata where {error.name}.py is, or install it."
            ) from None
        raise SettingsError(f"The module {name} cannot be imported: it needs the module {error.name}.") from error
    except SyntaxError as error:
        raise SettingsError(f"{error.filename}, line {error.lineno} is not Python: {error.msg}.") from error
    except (Exception, SystemExit) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        kind = type(error).__name__
        raise SettingsError(
            f"The module {name} cannot be imported: {last.filename}, line {last.lineno} raised {kind}: {error}"
        ) from error
