"""What a server that has started says to the person who started it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamkit.cli.input.stores import shown
from streamkit.cli.session import Session

if TYPE_CHECKING:
    from streamkit.server import Server

__all__ = ["greet"]


def greet(
    session: Session, server: Server, app: str, store: str, access: str, workers: int = 0
) -> None:
    """Where it is, what it keeps where, and what to do next."""
    note = session.output.note
    note(f"streamkit serves on {server.address}")
    if app:
        note(f"app: {app}")
    if store or not app:
        note(f"store: {shown(store)}")
    if workers:
        note(f"workers: {workers}, and this process, which owns what they share")
    if access:
        note(f"access: as {access} says")
    if server.page_address:
        note(f"page: {server.page_address}")
    other = "" if server.address in ("localhost:50051", "127.0.0.1:50051") else server.address
    if other:
        note(f"  export STREAMKIT_SERVER={other}")
    needed = []
    if server.settings.get("ssl") is not None:
        needed.append("--ca FILE (--tls, if an authority of the system has signed)")
    if access:
        needed.append("--token-file FILE")
    note(f"next, in another terminal{', with ' if needed else ''}{' and '.join(needed)}:")
    if app:
        note("  streamkit describe                    the services and their methods")
    if store or not app:
        note("  streamkit run -- make test            any command as a job with its log")
        note("  streamkit logs -f                     what is logged, live")
        note('  streamkit query "SELECT * FROM jobs"  all of it as SQL')
