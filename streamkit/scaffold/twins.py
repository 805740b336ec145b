"""The types of stubs without an event loop, from the stubs that betterproto's plug-in writes.

`streamkit.Client.stub(OrdersStub)` makes its methods at run time; what is written here tells type
checkers, editors and readers which they are.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

__all__ = ["with_twins"]

_STUB = re.compile(r"^class (\w+)Stub\(betterproto\.ServiceStub\):$", re.MULTILINE)
_BOTH = re.compile(r"AsyncIterable\[([^\]]*)\] \| Iterable\[\1\]")


def with_twins(text: str) -> str:
    """Return a module of the plug-in with the twin of each stub behind it, which names it."""
    tree = ast.parse(text)
    lines = text.splitlines()
    for node in reversed(tree.body):
        if isinstance(node, ast.ClassDef) and _STUB.match(lines[node.lineno - 1]):
            assert node.end_lineno is not None
            lines[node.end_lineno : node.end_lineno] = ["", "", *_twin(node)]
    return _STUB.sub(r'class \1Stub(streamkit.ServiceStub["\1SyncStub"]):', "\n".join(lines) + "\n")


def _twin(stub: ast.ClassDef) -> Iterator[str]:
    name = stub.name.removesuffix("Stub")
    yield f"class {name}SyncStub(typing.Protocol):"
    yield f'    """What `streamkit.Client.stub({stub.name})` gives: the same without `async`."""'
    for method in stub.body:
        if isinstance(method, ast.AsyncFunctionDef):
            yield ""
            yield from _method(method)


def _method(method: ast.AsyncFunctionDef) -> Iterator[str]:
    arguments = method.args
    yield f"    def {method.name}("
    yield "        self,"
    for argument in arguments.args[1:]:
        yield f'        {argument.arg}: "{_blocking(argument.annotation)}",'
    yield "        *,"
    for argument in arguments.kwonlyargs:
        yield f'        {argument.arg}: "{_blocking(argument.annotation)}" = None,'
    yield f'    ) -> "{_blocking(method.returns)}":'
    if told := ast.get_docstring(method, clean=False):
        yield f"        {told!r}" if "\n" not in told else f'        """{told}"""'
    yield "        ..."


def _blocking(annotation: ast.expr | None) -> str:
    """What stands for a type where nothing is awaited."""
    assert annotation is not None
    text = annotation.value if isinstance(annotation, ast.Constant) else ast.unparse(annotation)
    text = _BOTH.sub(r"Iterable[\1]", str(text))
    return text.replace("AsyncIterator[", "streamkit.SyncReplies[")
