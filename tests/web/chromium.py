"""Chromium driven over its own debugging pipe: no driver, no test library, no download."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

BINARY = shutil.which("chromium") or shutil.which("chromium-browser") or ""
PATIENCE = 20.0
_FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--force-color-profile=srgb", "--hide-scrollbars",
    "--remote-debugging-pipe",
]  # fmt: skip


class Process:
    """A running browser with an empty profile. One serves all tests; start it outside of loops."""

    def __init__(self, *flags: str) -> None:
        to_child, self.write = os.pipe()
        self.read, from_child = os.pipe()
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)

        def pipes() -> None:
            # The browser wants them as 3 and 4, and one may stand where the other has to be.
            first, second = os.dup(to_child), os.dup(from_child)
            os.dup2(first, 3)
            os.dup2(second, 4)

        self._process = subprocess.Popen(
            [BINARY, *_FLAGS, f"--user-data-dir={self._profile.name}", *flags, "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(3, 4, to_child, from_child),
            preexec_fn=pipes,
            start_new_session=True,
        )
        os.close(to_child)
        os.close(from_child)
        self.numbers = count(1)
        """Of commands: what answers an earlier test is nobody's."""

    def stop(self) -> None:
        """End it."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, 9)
        self._process.wait()
        os.close(self.write)
        os.close(self.read)
        self._profile.cleanup()


class Browser:
    """What one test sees of the browser: the tabs that it opens."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._buffer = b""
        self._contexts: list[str] = []
        self.tabs: dict[str, Tab] = {}
        asyncio.get_running_loop().add_reader(process.read, self._readable)

    async def close(self) -> None:
        """Close the tabs and leave the browser to the next test."""
        try:
            for context in self._contexts:
                await self.send("Target.disposeBrowserContext", browserContextId=context)
        finally:
            asyncio.get_running_loop().remove_reader(self._process.read)

    def _readable(self) -> None:
        data = os.read(self._process.read, 1 << 20)
        if not data:
            asyncio.get_running_loop().remove_reader(self._process.read)
            return
        self._buffer += data
        *whole, self._buffer = self._buffer.split(b"\0")
        for text in whole:
            message = json.loads(text)
            waiter = self._answers.pop(message.get("id", -1), None)
            if waiter is not None and not waiter.done():
                waiter.set_result(message)
            elif "method" in message and message.get("sessionId") in self.tabs:
                self.tabs[message["sessionId"]].heard(message["method"], message["params"])

    async def send(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        """Send a command and wait for its result."""
        number = next(self._process.numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        waiter = self._answers[number] = asyncio.get_running_loop().create_future()
        os.write(self._process.write, json.dumps(message).encode() + b"\0")
        async with asyncio.timeout(PATIENCE):
            answer = await waiter
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    async def tab(self, width: int = 1400, height: int = 800, dark: bool = False) -> Tab:
        """Open a tab with cookies of its own."""
        context = (await self.send("Target.createBrowserContext"))["browserContextId"]
        self._contexts.append(context)
        target = await self.send("Target.createTarget", url="about:blank", browserContextId=context)
        attached = await self.send(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        tab = Tab(self, attached["sessionId"], context)
        self.tabs[attached["sessionId"]] = tab
        for domain in ("Page", "Runtime", "Network", "Log"):
            await tab.send(f"{domain}.enable")
        await tab.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        await tab.send("Emulation.setEmulatedMedia", features=features)
        return tab


class Tab:
    """One page."""

    def __init__(self, browser: Browser, session: str, context: str) -> None:
        self._browser = browser
        self._session = session
        self._context = context
        self.problems: list[str] = []
        """Exceptions, errors on the console, and reports of the content security policy."""

    def heard(self, method: str, params: dict[str, Any]) -> None:
        """Keep what went wrong."""
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            told = details.get("exception", {}).get("description", details["text"])
            self.problems.append(told)
        elif method == "Log.entryAdded" and params["entry"]["source"] in ("security", "javascript"):
            self.problems.append(params["entry"]["text"])

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        return await self._browser.send(method, self._session, **params)

    async def downloads(self, folder: Path) -> None:
        """Let files be saved in a folder."""
        await self._browser.send(
            "Browser.setDownloadBehavior",
            behavior="allow", downloadPath=str(folder), browserContextId=self._context,
        )  # fmt: skip

    async def open(self, url: str) -> None:
        """Go to an address."""
        await self.send("Page.navigate", url=url)

    async def run(self, code: str) -> Any:
        """The value of an expression, awaited if it is a promise."""
        answer = await self.send(
            "Runtime.evaluate",
            expression=code, awaitPromise=True, returnByValue=True, userGesture=True,
        )  # fmt: skip
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise AssertionError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    async def until(self, code: str, patience: float = PATIENCE) -> None:
        """Wait until an expression is true."""
        try:
            async with asyncio.timeout(patience):
                while True:
                    with suppress(AssertionError):  # the page may just be changing
                        if await self.run(f"Boolean({code})"):
                            return
                    await asyncio.sleep(0.03)
        except TimeoutError:
            text = await self.run("document.body.innerText.slice(0, 2000)")
            raise AssertionError(f"never: {code}\nproblems: {self.problems}\n{text}") from None

    async def sees(self, text: str, where: str = "body") -> None:
        """Wait until a text is on the page."""
        await self.until(
            f"document.querySelector({where!r})?.innerText.includes({json.dumps(text)})"
        )

    async def click(self, text: str, kind: str = "button") -> None:
        """Click the first visible element of a kind with this text."""
        await self.until(
            f"(() => {{ const one = [...document.querySelectorAll({kind!r})].find((e) =>"
            f" e.innerText.trim() === {json.dumps(text)} && !e.disabled);"
            " one?.click(); return Boolean(one); })()"
        )

    async def type(self, label: str, text: str, *, enter: bool = False) -> None:
        """Put a text into the field with this accessible name, as a person would end it."""
        field = f"document.querySelector('[aria-label={json.dumps(label)}]')"
        await self.until(f"Boolean({field})")
        await self.run(f"{field}.focus(), {field}.select?.()")
        if not text:
            await self.run(f"{field}.value = '', {field}.dispatchEvent(new Event('input'))")
        await self.send("Input.insertText", text=text)
        if enter:
            await self.key("Enter")
        else:
            await self.run(f"{field}.dispatchEvent(new Event('change'))")

    async def key(self, key: str) -> None:
        """Press a key."""
        codes = {"Enter": 13, "Escape": 27, " ": 32, "/": 191, "ArrowUp": 38, "ArrowDown": 40}
        code = codes.get(key, ord(key[0].upper()))
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        for kind in ("keyDown", "keyUp"):
            await self.send(
                "Input.dispatchKeyEvent",
                type=kind, key=key, text=text if kind == "keyDown" else "",
                windowsVirtualKeyCode=code,
            )  # fmt: skip

    async def picture(self, path: Path) -> None:
        """Keep what is seen, as a PNG or as a WebP, which is a fifth as large."""
        kind: dict[str, Any] = {"format": "png"}
        if path.suffix == ".webp":
            kind = {"format": "webp", "quality": 45}
        shot = await self.send("Page.captureScreenshot", **kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    async def heap(self) -> int:
        """Bytes of JavaScript's heap after a collection."""
        await self.send("HeapProfiler.collectGarbage")
        usage = await self.send("Runtime.getHeapUsage")
        return int(usage["usedSize"])
