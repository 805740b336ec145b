"""Message classes of every kind, whatever was imported first."""

from __future__ import annotations

import enum
import subprocess
import sys
import textwrap
import warnings
from dataclasses import dataclass
from typing import Any

import betterproto
import pytest

from streamkit.codec import decode, encode

SNAKE: Any = betterproto.Casing.SNAKE  # mypy takes the functions for what they are


@dataclass(eq=False, repr=False)
class Base(betterproto.Message):
    number: int = betterproto.int32_field(1)


@dataclass(eq=False, repr=False)
class Derived(Base):
    text: str = betterproto.string_field(2)


class Bare(Base):
    """No fields of its own, no dataclass decorator."""


@dataclass(eq=False, repr=False)
class Checked(betterproto.Message):
    number: int = betterproto.int32_field(1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.is_set("number"):
            warnings.warn("number is deprecated", DeprecationWarning, stacklevel=2)


# --- classes -----------------------------------------------------------------------------------


def test_derived_classes_have_their_own_code() -> None:
    assert encode(Base(number=1)) == b"\x08\x01"
    derived = Derived(number=1, text="a")
    assert encode(derived) == bytes(derived) == b"\x08\x01\x12\x01a"
    assert decode(Derived, encode(derived)) == derived
    assert type(Bare.FromString(b"\x08\x05")) is Bare and bytes(Bare(number=5)) == b"\x08\x05"


def test_a_post_init_of_the_class_still_runs() -> None:
    for _ in range(2):
        with pytest.warns(DeprecationWarning, match="number is deprecated"):
            Checked(number=1)
        assert encode(Checked()) == b""


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_messages_made_before_the_codec_came_are_adopted() -> None:
    run(
        """
        from dataclasses import dataclass
        import betterproto

        @dataclass(eq=False, repr=False)
        class Early(betterproto.Message):
            number: int = betterproto.int32_field(1)
            text: str = betterproto.string_field(2)
            one: int = betterproto.int32_field(3, group="g")
            two: int = betterproto.int32_field(4, group="g")

        early, empty = Early(number=1, two=0), Early()
        import streamkit.codec
        assert Early(text="x").number == 0  # installs the class
        assert early.text == "" and early.number == 1, early
        assert betterproto.which_one_of(early, "g") == ("two", 0)
        assert bytes(early) == b"\\x08\\x01\\x20\\x00" and bytes(empty) == b""
        assert not betterproto.serialized_on_wire(empty)
        """
    )


def test_the_rust_codec_makes_no_difference() -> None:
    """A stand-in that would be noticed: betterproto takes whatever has this name."""
    run(
        """
        import sys, types
        fake = types.ModuleType("betterproto_rust_codec")
        def fail(*args):
            raise AssertionError("the Rust codec was used")
        fake.serialize = fake.deserialize = fail
        sys.modules["betterproto_rust_codec"] = fake
        import betterproto
        assert betterproto.Message.__bytes__.__name__ == "__bytes_patch"
        from streamkit.codec import decode, encode
        from streamkit.generated.streamservice import Control, Gap, Update
        message = Update(topic="a", control=Control(gap=Gap(first=1)))
        data = bytes(message)
        assert data == encode(message) == message.SerializeToString()
        assert Update().parse(data) == Update.FromString(data) == decode(Update, data) == message
        """
    )


def test_importing_compiles_nothing_and_the_first_use_does() -> None:
    out = run(
        """
        import linecache
        import streamkit.codec
        from streamkit.generated.streamservice import Update
        assert not [name for name in linecache.cache if name.startswith("<streamkit")]
        Update.FromString(b"")
        print(*sorted(name for name in linecache.cache if name.startswith("<streamkit")))
        """
    )
    assert out == "<streamkit decode streamkit.generated.streamservice.Update>"


# --- whatever was imported first ---------------------------------------------------------------

STRICT = """
from streamkit.errors import EncodeError
assert bytes(cls(**{field: 5})) == bytes(cls.FromString(wire)) == wire
try:
    bytes(cls(**{field: 1 << 70}))
except EncodeError as error:
    assert "out of range" in str(error)
else:
    raise AssertionError("encoded what no uint64 can hold")
"""
GENERATED = """
from streamkit.generated.streamservice import Position as cls
field, wire = "sequence", bytes([16, 5])
"""
OWN = """
from dataclasses import dataclass
import betterproto

@dataclass(eq=False, repr=False)
class Own(betterproto.Message):
    number: int = betterproto.uint64_field(1)

cls, field, wire = Own, "number", bytes([8, 5])
early = bytes(Own(number=1))
"""


@pytest.mark.parametrize(
    "text",
    [
        GENERATED,
        OWN + "import streamkit.generated.grpc.health.v1",
        OWN + "import streamkit; streamkit.Server",
        OWN + "import streamkit; streamkit.Channel",
        OWN + "import streamkit; streamkit.AsyncClient",
        OWN + "import streamkit; streamkit.Client",
        "import streamkit; streamkit.GrpcServer" + OWN,
    ],
)
def test_classes_are_the_same_whatever_was_imported_first(text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{text}\n{STRICT}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


class Plain(enum.IntEnum):
    A = 0


@dataclass(eq=False, repr=False)
class Counted(betterproto.Message):
    kind: int = betterproto.enum_field(1)


@dataclass(eq=False, repr=False)
class Named(betterproto.Message):
    kind: Plain = betterproto.enum_field(1)  # noqa: RUF009  # as betterproto declares them


@dataclass(eq=False, repr=False)
class Nameless(betterproto.Message):
    kind: betterproto.Enum = betterproto.enum_field(1)  # noqa: RUF009  # as above


def test_an_enum_of_another_kind_is_refused_with_its_name() -> None:
    for cls, shown in ((Counted, "int"), (Named, "Plain")):
        with pytest.raises(TypeError, match=f"kind: {shown} is no betterproto.Enum"):
            decode(cls, b"\x08\x01")
    assert decode(Nameless, b"\x08\x05").kind == 5, "betterproto's own, which has no members"
    wrong: Any = betterproto.Enum
    with pytest.raises(TypeError, match="Enum is no message class"):
        decode(wrong, b"")
