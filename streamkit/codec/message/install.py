"""Make a message class fast: replace its construction, attribute access, encoding and decoding.

The state of an installed class's message is its `__dict__`, and nothing else: a field is in it if
and only if it is set. What betterproto keeps beside the fields is derived from that:

- A field that is not set is found on the class. Immutable defaults stand there as they are; a list,
  dict or sub-message is made by a descriptor and kept; a oneof member that is not set raises.
- `_group_current`, the members that are set, by group.
- `_serialized_on_wire`: false for a message that was made empty and still is, true otherwise. Such
  a message carries the mark `_blank`: true if attribute access made it, false if the caller did.
- `_unknown_fields`, in the dict when there are any.

Reading an attribute that is set is therefore a plain lookup, and a decoder fills a dict.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

import betterproto

from streamkit.codec.compiled.compile import compile_function
from streamkit.codec.compiled.emit_decode import decode_source
from streamkit.codec.compiled.emit_encode import encode_all_source, encode_source
from streamkit.codec.compiled.emit_init import init_source
from streamkit.codec.exact.decode import ExactDecoder
from streamkit.codec.exact.encode import ExactEncoder
from streamkit.codec.plan import MessagePlan, plan_of
from streamkit.codec.wire.field import UNSET, Field

__all__ = [
    "blank",
    "decoder_for",
    "encoder_for",
    "exact_decode",
    "exact_encode",
    "install",
    "ready",
]

_PLAN: Final = "_streamkit_plan"
_ENCODE: Final = "_streamkit_encode"
_ENCODE_ALL: Final = "_streamkit_encode_all"
_DECODE: Final = "_streamkit_decode"
_SCAN: Final = "_streamkit_scan"

_M = TypeVar("_M", bound=betterproto.Message)

_lock = threading.RLock()
_stock_init: Final = "<string>"
"""The file name of the `__init__` that dataclasses make."""


def ready(cls: type[betterproto.Message]) -> MessagePlan:
    """Install the class if that was not done yet; return its plan."""
    plan: MessagePlan | None = cls.__dict__.get(_PLAN)
    if plan is None:
        with _lock:
            plan = cls.__dict__.get(_PLAN) or _install(cls)
    return plan


def _scan_of(cls: type[betterproto.Message]) -> Callable[..., Any]:
    if _SCAN not in cls.__dict__:
        decoder_for(cls)
    scan: Callable[..., Any] = getattr(cls, _SCAN)
    return scan


_encoder: Final = ExactEncoder(ready)
_decoder: Final = ExactDecoder(ready, _encoder.field, _scan_of)
exact_decode = _decoder.decode
exact_encode = _encoder.encode


def install(cls: type[betterproto.Message]) -> None:
    """Make the class fast now, compiled code included. The first use of a class does the same."""
    ready(cls)
    encoder_for(cls)
    decoder_for(cls)


def encoder_for(cls: type[_M]) -> Callable[[_M], bytes]:
    """Return the class's compiled encoder. It raises EncodeError."""
    if _ENCODE not in cls.__dict__:
        with _lock:
            source, names = encode_source(ready(cls), exact_encode, _link_encoder, _link_encode_all)
            encode: Callable[..., bytes] = compile_function(ready(cls), "encode", source, names)
            if cls.__bytes__ is betterproto.Message.__bytes__:
                setattr(encode, _OURS, True)
                cls.__bytes__ = encode  # type: ignore[method-assign]  # ours is as good
            setattr(cls, _ENCODE, staticmethod(encode))
    found: Callable[[_M], bytes] = getattr(cls, _ENCODE)
    return found


def decoder_for(cls: type[_M]) -> Callable[..., _M]:
    """Return the class's compiled decoder: `decode(data, start=0, end=len(data))`.

    It raises DecodeError.
    """
    if _DECODE not in cls.__dict__:
        with _lock:
            plan = ready(cls)
            source, names = decode_source(plan, exact_decode, _decoder.nested, _link_scan)
            decode = compile_function(plan, "decode", source, names)
            setattr(cls, _SCAN, staticmethod(names["scan"]))
            setattr(cls, _DECODE, staticmethod(decode))
    found: Callable[..., _M] = getattr(cls, _DECODE)
    return found


def _link_encoder(names: dict[str, Any], name: str, cls: type) -> None:
    """Bind the name to the class's encoder, which is compiled at the first call."""

    def first(message: Any) -> bytes:
        encode: Callable[[Any], bytes] = encoder_for(cls)
        names[name] = encode
        return encode(message)

    names[name] = first


def _link_encode_all(names: dict[str, Any], name: str, cls: type) -> None:
    """Bind the name to the class's encoder of many messages."""

    def first(messages: list[Any], heads: list[bytes], tag: bytes) -> bytes:
        with _lock:
            if _ENCODE_ALL not in cls.__dict__:
                plan = ready(cls)
                source, used = encode_all_source(plan, _link_encoder, _link_encode_all)
                function = compile_function(plan, "encode_all", source, used)
                setattr(cls, _ENCODE_ALL, staticmethod(function))
        names[name] = encode_all = getattr(cls, _ENCODE_ALL)
        result: bytes = encode_all(messages, heads, tag)
        return result

    names[name] = first


def _link_scan(names: dict[str, Any], name: str, cls: type) -> None:
    """Bind the name to the class's scan, which is compiled at the first call."""

    def first(buf: bytes, at: int, end: int, depth: int) -> Any:
        decoder_for(cls)
        names[name] = scan = getattr(cls, _SCAN)
        return scan(buf, at, end, depth)

    names[name] = first


def blank(cls: Any) -> Any:
    """An empty message that is not sent unless something is put into it."""
    ready(cls)
    message = object.__new__(cls)
    message.__dict__["_blank"] = True
    return message


def _install(cls: type[betterproto.Message]) -> MessagePlan:
    plan = plan_of(cls)
    for field in plan.declared:
        setattr(cls, field.name, _class_attribute(plan, field))
    cls._serialized_on_wire = _SerializedOnWire(plan)  # type: ignore[assignment]  # a descriptor of it
    cls._group_current = _GroupCurrent(plan)  # type: ignore[assignment]  # a descriptor of it
    cls._unknown_fields = b""
    if cls.__getattribute__ is betterproto.Message.__getattribute__:
        cls.__getattribute__ = object.__getattribute__  # type: ignore[method-assign]  # quicker
    if cls.__setattr__ in _REPLACEABLE_SETATTR or hasattr(cls.__setattr__, _OURS):
        cls.__setattr__ = _setattr_for(plan)  # type: ignore[method-assign]  # ours
    if hasattr(cls.__bytes__, _OURS):
        # Inherited from an installed class, whose fields are not all of this one's.
        cls.__bytes__ = betterproto.Message.__bytes__  # type: ignore[method-assign]  # stock again
    init = cls.__init__
    code = getattr(init, "__code__", None)
    if hasattr(init, _OURS) or (code is not None and code.co_filename == _stock_init):
        _install_init(cls, plan)
    setattr(cls, _PLAN, plan)
    return plan


_OURS: Final = "_streamkit"
_REPLACEABLE_SETATTR: Final = (betterproto.Message.__setattr__, object.__setattr__)


def _install_init(cls: type[betterproto.Message], plan: MessagePlan) -> None:
    def first(self: betterproto.Message, *args: Any, **kwargs: Any) -> None:
        post_init = cls.__post_init__ is not betterproto.Message.__post_init__
        source, names = init_source(plan, post_init=post_init)
        init = compile_function(plan, "__init__", source, names)
        setattr(init, _OURS, True)
        cls.__init__ = init  # type: ignore[method-assign]  # from now on
        init(self, *args, **kwargs)

    setattr(first, _OURS, True)
    cls.__init__ = first  # type: ignore[method-assign, assignment]  # it makes the real one


def _class_attribute(plan: MessagePlan, field: Field) -> Any:
    """What the class shows for a field that an instance does not have."""
    if field.group:
        return _UnsetMember(field)
    if field.plural or (field.kind == "message" and not field.optional):
        return _MadeOnAccess(field)
    return field.default()


class _MadeOnAccess:
    """A list, dict or sub-message: made when it is first looked at, then the message's own."""

    def __init__(self, field: Field) -> None:
        self.field = field

    def __get__(self, message: betterproto.Message | None, owner: type) -> Any:
        if message is None:
            return UNSET
        field = self.field
        value = field.default() if field.plural else blank(field.target)
        message.__dict__[field.name] = value
        return value


class _UnsetMember:
    """A member of a oneof that is not the one that is set."""

    def __init__(self, field: Field) -> None:
        self.field = field

    def __get__(self, message: betterproto.Message | None, owner: type) -> Any:
        if message is None:
            return UNSET
        name, group = self.field.name, self.field.group
        current = message._group_current[group]
        raise AttributeError(
            f"{group!r} is set to {current!r}, not {name!r}", name=name, obj=message
        )


class _GroupCurrent:
    """`message._group_current`: for each oneof the member that is set, or None."""

    def __init__(self, plan: MessagePlan) -> None:
        self.groups = plan.groups

    def __get__(self, message: betterproto.Message | None, owner: type) -> Any:
        if message is None:
            raise AttributeError("_group_current")
        values = message.__dict__
        return {
            group: next((name for name in members if name in values), None)
            for group, members in self.groups.items()
        }


class _SerializedOnWire:
    """`message._serialized_on_wire`, unless somebody set it."""

    def __init__(self, plan: MessagePlan) -> None:
        self.plan = plan

    def __get__(self, message: betterproto.Message | None, owner: type) -> Any:
        if message is None:
            raise AttributeError("_serialized_on_wire")
        values = message.__dict__
        return "_blank" not in values or any(
            field.name in values and _has_content(field, values[field.name])
            for field in self.plan.fields
        )


def _has_content(field: Field, value: Any) -> bool:
    if field.plural:
        return len(value) > 0
    if isinstance(value, betterproto.Message) and not field.group:
        return bool(value._serialized_on_wire)
    return value is not None


def _setattr_for(plan: MessagePlan) -> Any:
    if not plan.groups:
        return object.__setattr__
    siblings = plan.siblings
    plain = object.__setattr__

    def set_attribute(self: betterproto.Message, name: str, value: Any) -> None:
        others = siblings.get(name)
        if others is not None:
            values = self.__dict__
            for other in others:
                values.pop(other, None)
        plain(self, name, value)

    setattr(set_attribute, _OURS, True)
    return set_attribute
