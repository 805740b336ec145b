"""What a browser may be made to ask: the defences of a server that pages of others can reach.

A page of another site can make a browser send requests to any address that the browser reaches,
this machine's own included, and after rebinding a name even read the answers. So a request counts
only when the name that it was sent to is ours, and when the page that sent it is ours or was named.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from streamkit.doors.http.cors import Cors
from streamkit.doors.http.requests import WebRequest

__all__ = ["Guard"]

_OURS = ("same-origin", "none")


class Guard:
    """Decides whether a request is looked at at all."""

    def __init__(self, hosts: Iterable[str], cors: Cors) -> None:
        """`hosts` are the names under which the server is reached, beside those of this machine."""
        self._hosts = frozenset({"localhost", *(host.lower() for host in hosts)})
        self._cors = cors

    def refusal(self, request: WebRequest) -> tuple[int, str] | None:
        """Return status and text for a request that must not be answered; None: it may be."""
        headers = request.headers
        host = headers.get("host", "")
        if not self._is_ours(host):
            return 421, "this server is not known by that name (--allow-host NAME)\n"
        origin = headers.get("origin", "")
        if origin in self._cors.origins:
            return None
        site = headers.get("sec-fetch-site", "")
        if site and site not in _OURS and not _is_visit(request):
            return 403, "pages of other sites may not ask this (--allow-origin ORIGIN)\n"
        scheme = "https" if request.call.secure else "http"
        if origin and origin != f"{scheme}://{host}" and request.call.method not in ("GET", "HEAD"):
            return 403, "pages of other sites may not ask this (--allow-origin ORIGIN)\n"
        return None

    @staticmethod
    def from_browser(request: WebRequest) -> bool:
        """Whether a page asks: every browser says so in one of these headers."""
        return "sec-fetch-site" in request.headers or "origin" in request.headers

    def _is_ours(self, host: str) -> bool:
        name = (urlsplit(f"//{host}").hostname or "") if _is_clean(host) else ""
        if name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True  # an address cannot be rebound: whoever wrote it meant this machine


def _is_clean(host: str) -> bool:
    return not set(host) & set("/\\@?# ")


def _is_visit(request: WebRequest) -> bool:
    """A link of another site was followed: the page may come, which holds no data."""
    headers = request.headers
    return (
        request.call.method == "GET"
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
        and request.path == "/"
        and not request.query
    )
