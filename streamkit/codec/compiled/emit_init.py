"""The text of a class's `__init__`."""

from __future__ import annotations

from typing import Any

from streamkit.codec.plan import MessagePlan
from streamkit.codec.wire.field import UNSET

__all__ = ["init_source"]


def init_source(plan: MessagePlan, *, post_init: bool) -> tuple[str, dict[str, Any]]:
    """Return the source and the names that it needs.

    The signature is the dataclass's own. Only what was given is stored; of several members of a
    oneof the last one stays. `post_init`: the class has a `__post_init__` of its own to be called.
    """
    # Names that no field has: longer than any of them.
    longest = "_" * max(map(len, plan.by_name), default=0)
    this = "self" if "self" not in plan.by_name else f"self{longest}"
    values, unset = f"values{longest}", f"unset{longest}"
    default = {True: "None", False: unset}
    arguments = [f"{one.name}={default[one.optional]}" for one in plan.declared]
    lines = [f"def __init__({', '.join([this, *arguments])}):", f"    {values} = {this}.__dict__"]
    earlier: dict[str, list[str]] = {}
    for one in plan.declared:
        absent = "None" if one.optional else unset
        lines.append(f"    if {one.name} is not {absent}:")
        if one.group:
            others = earlier.setdefault(one.group, [])
            lines += [f"        {values}.pop({name!r}, None)" for name in others]
            others.append(one.name)
        lines.append(f"        {values}[{one.name!r}] = {one.name}")
    if plan.declared:
        # An empty message that nobody received is not sent: see the notes of _install.
        lines += [f"    if not {values}:", f"        {values}['_blank'] = False"]
    if post_init:
        lines.append(f"    {this}.__post_init__()")
    return "\n".join(lines) + "\n", {unset: UNSET}
