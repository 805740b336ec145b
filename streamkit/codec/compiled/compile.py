"""Source text to a function, with its lines where tracebacks and the debugger look for them."""

from __future__ import annotations

import linecache
from collections.abc import Callable
from typing import Any

from streamkit.codec.plan import MessagePlan

__all__ = ["ClassNames", "compile_function"]


class ClassNames(dict[type, str]):
    """What source calls a class: a name for each, which nothing else in that source has.

    Classes of different packages may have one name, and it may be one that the source uses itself;
    none of its own names has two underscores in a row.
    """

    def __missing__(self, cls: type) -> str:
        shown = cls.__name__ if cls.__name__.isidentifier() else "a"
        self[cls] = name = f"{shown}__{len(self)}"
        return name


def compile_function(
    plan: MessagePlan, name: str, source: str, names: dict[str, Any]
) -> Callable[..., Any]:
    """Compile `source`, which defines the function `name`; `names` becomes its globals."""
    filename = f"<streamkit {name} {plan.cls.__module__}.{plan.cls.__qualname__}>"
    if filename in linecache.cache:
        # A class of the same name was made at run time: keep both texts apart.
        filename = f"{filename[:-1]} {id(plan.cls):x}>"
    exec(compile(source, filename, "exec", dont_inherit=True), names)
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    function: Callable[..., Any] = names[name]
    function.__module__ = plan.cls.__module__
    function.__qualname__ = f"{plan.cls.__qualname__}.{name}"
    return function
