"""A headless Chromium by its debugging pipe: pages as a person sees and uses them."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run")
_SECONDS = 60


def executable() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """One tab: commands of the DevTools protocol, and every event they brought."""

    def __init__(self, read: Any, write: Any):
        self._read, self._write, self._count, self._session = read, write, 0, None
        self.events: list[tuple[str, dict[str, Any]]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._write.write(json.dumps(message).encode() + b"\0")
        self._write.flush()
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        text = bytearray()
        while (byte := self._read.read(1)) != b"\0":
            assert byte, "the browser has ended"
            text += byte
        answer = json.loads(text)
        if "method" in answer:
            self.events.append((answer["method"], answer["params"]))
        return answer

    def open(self, path: Path, width: int, *, dark: bool = False) -> None:
        """Load a file into a window of so many pixels."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=800,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self.send("Page.navigate", url=path.as_uri())
        while not any(name == "Page.loadEventFired" for name, _ in self.events):
            self._next()

    def value(self, expression: str) -> Any:
        """What a line of JavaScript gives."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """A key, as from the keyboard: ArrowRight, Tab, ..."""
        code = {"ArrowRight": 39, "ArrowLeft": 37, "End": 35, "Home": 36, "Tab": 9}[key]
        for kind in ("rawKeyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code
            )

    def complaints(self) -> list[str]:
        """Errors and warnings of console, scripts and policy."""
        found = []
        for name, about in self.events:
            if name == "Runtime.exceptionThrown" or name == "Runtime.consoleAPICalled":
                found.append(f"{name}: {about}")
            if name == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
                found.append(f"{name}: {about['entry']}")
        return found

    def requests(self) -> list[str]:
        """Addresses that were asked for, less those that stand in the page itself."""
        asked = [
            a["request"]["url"] for name, a in self.events if name == "Network.requestWillBeSent"
        ]
        return [url for url in asked if not url.startswith("data:")]

    def picture(self, path: Path) -> None:
        """The whole page as PNG."""
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextlib.contextmanager
def opened(profile: Path) -> Iterator[Page]:
    """A browser with one empty tab, which ends with the block.

    Args:
      profile: an empty folder for what it keeps.
    """
    ours_read, its_write = os.pipe()
    its_read, ours_write = os.pipe()
    command = [str(executable()), *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe"]
    # Chromium reads commands from 3 and answers on 4.
    shell = ["bash", "-c", f'exec "$@" 3<&{its_read} 4>&{its_write}', "bash", *command]
    process = subprocess.Popen(
        shell, pass_fds=(its_read, its_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(its_read)
    os.close(its_write)
    try:
        with os.fdopen(ours_read, "rb") as read, os.fdopen(ours_write, "wb") as write:
            page = Page(read, write)
            yield page
            page._session = None
            page.send("Browser.close")
    finally:
        try:
            process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
