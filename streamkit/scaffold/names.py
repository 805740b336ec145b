"""Names of a schema that are another thing in Python: they get out of the way, or are refused."""

from __future__ import annotations

import ast
import keyword
import re
import sys
from collections.abc import Iterable, Iterator, Sequence

from streamkit.errors import InvalidArgumentError

__all__ = ["hiding", "refuse_keywords", "refuse_namesakes", "with_free_parameters"]

_TAKEN = "self|timeout|deadline|metadata"
_PARAMETER = re.compile(rf'(async def \w+\(\s*self,\s*)({_TAKEN})(: ")')
_GIVEN = re.compile(rf'(self\._unary_\w+\(\s*"[^"]+",\s*)({_TAKEN})(,)')
_OURS = {"betterproto", "grpclib", "streamkit"}


def with_free_parameters(text: str) -> str:
    """A request is called after its message, and one called Metadata is beside `metadata=`."""
    return _GIVEN.sub(r"\1\2_\3", _PARAMETER.sub(r"\1\2_\3", text))


def refuse_namesakes(tree: ast.Module) -> None:
    """Python's names lose the case and the nesting of the schema's: two may become one. And a
    field may have the name of what the code behind it needs."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    scopes: list[tuple[str, Sequence[ast.stmt]]] = [("", classes)]
    for scope, body in scopes + [(f"{node.name}.", node.body) for node in classes]:
        seen: set[str] = set()
        for node in body:
            hidden = sorted(seen & set(_used(node))) if scope else []
            if hidden:
                raise InvalidArgumentError(
                    f"{scope}{hidden[0]}: a field of that name hides what other fields need",
                    hint="rename it; its number is what is sent",
                )
            name = ""
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                name = node.target.id
            elif isinstance(node, ast.ClassDef | ast.AsyncFunctionDef):
                name = node.name
            if name in seen:
                raise InvalidArgumentError(
                    f"two names of the schema become one in Python: {scope}{name}",
                    hint="rename one of them",
                )
            seen |= {name} - {""}


def _used(node: ast.stmt) -> Iterator[str]:
    """The names that a field's line reads when its class is made."""
    if isinstance(node, ast.AnnAssign):
        for part in (node.annotation, node.value):
            for one in ast.walk(part) if part is not None else ():
                if isinstance(one, ast.Name):
                    yield one.id


def refuse_keywords(packages: Iterable[str]) -> None:
    """A package that no `import` can name would be written for nothing."""
    for package in packages:
        for part in package.split("."):
            if keyword.iskeyword(part):
                raise InvalidArgumentError(
                    f'the package {package} cannot be imported: "{part}" is a word of Python',
                    hint="call it otherwise in the schema",
                )


def hiding(packages: Iterable[str]) -> list[str]:
    """Those that Python, or streamkit, has under the same name: one hides the other."""
    known = sys.stdlib_module_names | _OURS
    return sorted({package.split(".")[0] for package in packages} & known)
