"""MODULE:NAME, what a person's own module offers to be served."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from streamkit.cli.exits import UsageError

if TYPE_CHECKING:
    from streamkit.server import Server

__all__ = ["load_app"]


def load_app(named: str) -> Server:
    """Return the server that `module:name` means, or a new one of the handlers that it means.

    The name may also be that of a function without arguments that returns either. Modules are
    looked for in the working directory first. UsageError for what is not there or nothing to be
    served; PreconditionError, with its place, for what goes wrong inside.
    """
    from streamkit.server import Server

    module_name, _, path = named.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *path.split("."))):
        hint = f", here perhaps {module_name[:-3]}:app" if module_name.endswith(".py") else ""
        raise UsageError(f"{named!r} is not MODULE:NAME, such as shop:app{hint}")
    value: Any = _module(module_name)
    for name in path.split("."):
        if not hasattr(value, name):
            near = difflib.get_close_matches(name, dir(value), 1)
            hint = f"; there is {near[0]!r}" if near else ""
            raise UsageError(f"{module_name} has no {name!r}{hint}")
        value = getattr(value, name)
    if isinstance(value, type) or (callable(value) and not _is_handler(value)):
        value = _called(named, value)
    if isinstance(value, Server):
        return value
    handlers = [value] if _is_handler(value) else value
    if isinstance(handlers, Iterable):
        handlers = [one() if isinstance(one, type) else one for one in handlers]
        if handlers and all(map(_is_handler, handlers)):
            return Server(handlers)
    raise UsageError(
        f"{named} is {type(value).__name__}, and not a streamkit.Server, a handler,"
        " handlers, or a function that returns one of these"
    )


def _is_handler(value: object) -> bool:
    return hasattr(value, "__mapping__") and not isinstance(value, type)


def _module(name: str) -> Any:
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise UsageError(f"there is no module {error.name!r} in {folder}") from None
        raise _broken(f"cannot import {name}", error) from error
    except (Exception, SystemExit) as error:
        raise _broken(f"cannot import {name}", error) from error


def _called(named: str, factory: Any) -> Any:
    try:
        value = factory()
    except Exception as error:
        raise _broken(f"{named} cannot be made", error) from error
    if inspect.iscoroutine(value):
        value.close()
        raise UsageError(f"{named} is asynchronous: use streamkit.Server(lifespan=...) for that")
    return value


def _broken(what: str, error: BaseException) -> Exception:
    from streamkit.background import place_of
    from streamkit.errors import PreconditionError

    place = place_of(error)
    return PreconditionError(f"{what}: {place.removeprefix(os.getcwd() + os.sep)}")
