"""What services tell about themselves: their names, their schema, whom they are open to."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from betterproto.casing import safe_snake_case

from streamkit.rights import roles_of
from streamkit.transport.server.serving import Servable

__all__ = ["descriptors_of", "opened_methods", "services_of"]


def opened_methods(handlers: Iterable[Servable]) -> dict[str, frozenset[str]]:
    """Return path -> roles of the methods that handlers have opened to some."""
    found = {}
    for handler in handlers:
        for path, method in handler.__mapping__().items():
            written = getattr(handler, safe_snake_case(path.rpartition("/")[2]), None)
            roles = roles_of(method.func) | roles_of(written)
            if roles:
                found[path] = roles
    return found


def services_of(handlers: Iterable[Servable]) -> set[str]:
    """Return the full names of the services that these handlers serve."""
    return {path.split("/")[1] for handler in handlers for path in handler.__mapping__()}


def descriptors_of(handlers: Iterable[Servable]) -> Iterable[bytes]:
    """Return what `streamkit gen` left beside the generated bases of the handlers."""
    modules = (sys.modules.get(base.__module__) for h in handlers for base in type(h).__mro__)
    found = (getattr(module, "DESCRIPTORS", None) for module in modules)
    return dict.fromkeys(data for data in found if isinstance(data, bytes))
