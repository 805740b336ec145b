"""The text of a class's `__init__`."""

from __future__ import annotations

from typing import Any

from streamkit.codec.plan import UNSET, MessagePlan

__all__ = ["init_source"]


def init_source(plan: MessagePlan, *, post_init: bool) -> tuple[str, dict[str, Any]]:
    """Return the source and the names that it needs.

    The signature is the dataclass's own. Only what was given is stored; of several members of a
    oneof the last one stays. `post_init`: the class has a `__post_init__` of its own to be called.
    """
    this = "self" if "self" not in plan.by_name else "_self"
    default = {True: "None", False: "_unset"}
    arguments = [f"{one.name}={default[one.optional]}" for one in plan.declared]
    lines = [f"def __init__({', '.join([this, *arguments])}):", f"    _d = {this}.__dict__"]
    earlier: dict[str, list[str]] = {}
    for one in plan.declared:
        absent = "None" if one.optional else "_unset"
        lines.append(f"    if {one.name} is not {absent}:")
        if one.group:
            others = earlier.setdefault(one.group, [])
            lines += [f"        _d.pop({name!r}, None)" for name in others]
            others.append(one.name)
        lines.append(f"        _d[{one.name!r}] = {one.name}")
    if plan.declared:
        # An empty message that nobody received is not sent: see the notes of _install.
        lines += ["    if not _d:", "        _d['_blank'] = False"]
    if post_init:
        lines.append(f"    {this}.__post_init__()")
    return "\n".join(lines) + "\n", {"_unset": UNSET}
