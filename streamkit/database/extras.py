"""The only importer of the optional libraries, when they are first needed and not before."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from streamkit.errors import PreconditionError

__all__ = ["driver_library", "driver_manager", "has", "library", "need"]

_IN_EXTRA = frozenset({"pyarrow", "adbc_driver_manager", "adbc_driver_postgresql", "duckdb"})


def has(module: str) -> bool:
    """Whether a module could be imported."""
    return find_spec(module) is not None


def need(module: str, purpose: str) -> None:
    """Raise PreconditionError, with what to install, if a module is not there."""
    if not has(module):
        what = (
            "pip install 'streamkit-grpc[arrow]'"
            if module in _IN_EXTRA
            else f"pip install {module.replace('_', '-')}"
        )
        raise PreconditionError(f"{purpose} needs {module}: {what}")


def library(module: str) -> Any:
    """Import one of the libraries of the extra: pyarrow, pyarrow.compute, duckdb.

    Raises PreconditionError when it is not installed.
    """
    need(module.partition(".")[0], "this")
    return import_module(module)


def driver_manager() -> Any:
    """The DB-API of the ADBC driver manager."""
    library("pyarrow")
    need("adbc_driver_manager", "this database")
    return import_module("adbc_driver_manager.dbapi")


def driver_library(driver: str) -> str:
    """The shared library of the ADBC driver package for this kind of database.

    Raises PreconditionError when it is not installed.
    """
    if driver == "duckdb":
        library("duckdb")
        return str(import_module("_duckdb").__file__)
    module = f"adbc_driver_{driver}"
    need(module, "this database")
    return str(import_module(module)._driver_path())
