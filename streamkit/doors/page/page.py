"""The page: its files, and logging in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from importlib.resources import files

from streamkit.doors.http.requests import WebRequest, answer
from streamkit.doors.page.catalog import methods_json
from streamkit.doors.page.sessions import Logins, Session
from streamkit.errors import InvalidArgumentError
from streamkit.transport.grpc.metadata import Headers

__all__ = ["Page", "new_page"]

_KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_SAFE: Headers = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; "
        "require-trusted-types-for 'script'",
    ),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
]
_LOGIN_BYTES = 16 * 1024
"""Of a request to log in; a token is much shorter."""
_SECONDS = 12 * 3600


class Page:
    """Answers the addresses of the page, and knows who has logged in on it."""

    def __init__(self, sessions: Logins, *, needs_token: bool, methods: str) -> None:
        """`needs_token`: the server has rules of access, so that a login needs one of its tokens.
        `methods` is what the page shows of the server's methods, as JSON."""
        self.sessions = sessions
        self._needs_token = needs_token
        self._methods = methods
        self._files = _read_files()

    async def answer(self, request: WebRequest) -> bool:
        """Answer a request for one of the page's addresses; False: it is for none of them."""
        call, path = request.call, request.path
        if path == "/" and call.method in ("GET", "HEAD") and (code := request.value("code")):
            await self._redeem(request, code)
        elif path in self._files and call.method in ("GET", "HEAD"):
            data, tag, kind = self._files[path]
            fresh = request.headers.get("if-none-match") == tag
            headers = (("etag", tag), ("cache-control", "no-cache"), *_SAFE)
            answer(call, 304 if fresh else 200, "" if fresh else data, *headers, kind=kind)
        elif path == "/session":
            await self._session(request)
        elif path == "/methods.json" and call.method == "GET":
            if await self.session_of(request) is None:
                answer(call, 401, "log in first\n", *_SAFE)
            else:
                answer(call, 200, self._methods, *_SAFE, kind="application/json")
        else:
            return False
        return True

    async def session_of(self, request: WebRequest) -> Session | None:
        """Return the login that a request belongs to."""
        cookie = request.cookies().get(_cookie_name(request), "")
        return await self.sessions.find(cookie) if cookie else None

    async def _redeem(self, request: WebRequest, code: str) -> None:
        cookie = await self.sessions.redeem(code)
        # A fetch, a prefetch or a preview must not use the code up: only a visit does.
        if cookie is None:
            answer(
                request.call,
                401,
                "This link was used already, or is too old. The server prints another one at its "
                "next start.\n",
                *_SAFE,
            )
        else:
            headers = (("location", "/"), _set_cookie(request, cookie, _SECONDS), *_SAFE)
            answer(request.call, 303, "", *headers)

    async def _session(self, request: WebRequest) -> None:
        call = request.call
        if call.method == "GET":
            told = {
                "loggedIn": await self.session_of(request) is not None,
                "needsToken": self._needs_token,
            }
            answer(
                call, 200, json.dumps(told), ("cache-control", "no-store"), *_SAFE,
                kind="application/json",
            )  # fmt: skip
            return
        if request.content_type != "application/json" or call.method not in ("POST", "DELETE"):
            answer(call, 405, "", ("allow", "GET, POST, DELETE"), *_SAFE)
            return
        name = _cookie_name(request)
        if call.method == "DELETE":
            await self.sessions.close(request.cookies().get(name, ""))
            answer(call, 204, "", _set_cookie(request, "", 0), *_SAFE)
            return
        try:
            given = json.loads(await call.read(_LOGIN_BYTES))
            token = given["token"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InvalidArgumentError('a login is {"token": "..."}') from None
        if not self._needs_token or not isinstance(token, str) or not _is_token(token):
            answer(call, 401, "this is no token\n", *_SAFE)
            return
        cookie = await self.sessions.open(token)
        answer(call, 204, "", _set_cookie(request, cookie, _SECONDS), *_SAFE)


def new_page(
    described: Iterable[bytes], services: Iterable[str], sessions: Logins, *, needs_token: bool
) -> Page:
    """Return the page of a server: its services and their descriptors, and its logins."""
    own = files("streamkit.generated").joinpath("descriptors.binpb").read_bytes()
    methods = methods_json((*described, own), services)
    return Page(sessions, needs_token=needs_token, methods=methods)


def _is_token(text: str) -> bool:
    return 0 < len(text) <= 8192 and text.isascii() and text.isprintable() and " " not in text


def _cookie_name(request: WebRequest) -> str:
    """Cookies know no ports: servers on one machine must not share one."""
    if request.call.secure:
        return "__Host-streamkit"
    port = request.headers.get("host", "").rpartition(":")[2]
    return f"streamkit_{port}" if port.isdigit() else "streamkit"


def _set_cookie(request: WebRequest, value: str, seconds: int) -> tuple[str, str]:
    secure = "; Secure" if request.call.secure else ""
    return (
        "set-cookie",
        f"{_cookie_name(request)}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict"
        + secure,
    )


def _read_files() -> dict[str, tuple[str, str, str]]:
    """Path -> text, entity tag and content type of the page's files."""
    found = {}
    for file in files("streamkit.doors.page").joinpath("static").iterdir():
        kind = _KINDS.get(file.name.rpartition(".")[2])
        if kind is not None:
            text = file.read_text()
            tag = f'"{hashlib.sha256(text.encode()).hexdigest()[:20]}"'
            found["/" if file.name == "index.html" else f"/{file.name}"] = (text, tag, kind)
    return found
