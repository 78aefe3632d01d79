"""A headless Chromium over chromedriver's HTTP protocol: no client library, only the standard one."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repository import HANG_SECONDS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
ABSENT = (
    "headless Chromium is not here: apt-get install -y --no-install-recommends chromium chromium-driver"
    if not (CHROMIUM and CHROMEDRIVER)
    else ""
)
ARGUMENTS = (
    "--headless=new", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
)  # fmt: skip


class Browser:
    """One session: open a page, run scripts in it, read its logs, take its picture."""

    def __init__(self, base: str, profile: str) -> None:
        self._base = base
        # Chromium refuses its sandbox to root, which is what CI machines run as.
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        options = {"binary": CHROMIUM, "args": [*ARGUMENTS, *root, f"--user-data-dir={profile}"]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options,
                  "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}  # fmt: skip
        made = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._base += f"/session/{made['sessionId']}"

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._base + path, content, {"Content-Type": "application/json"}, method=method
        )
        try:
            # An empty proxy handler: a proxy of the machine must not see calls to this machine.
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                request, timeout=HANG_SECONDS
            ) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"chromedriver refused {method} {path}: {error.read().decode()[:500]}") from None

    def devtools(self, command: str, **parameters: Any) -> Any:
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def look(self, width: int, height: int, dark: bool) -> None:
        """Set the size of the window's content and the colour scheme the system asks for."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url: str) -> None:
        self._call("POST", "/url", {"url": url})
        self.settle()

    def reload(self) -> None:
        self._call("POST", "/refresh", {})
        self.settle()

    def settle(self) -> None:
        """Wait until the page's script has run: chromedriver may return while a large page is parsed."""
        deadline = time.monotonic() + HANG_SECONDS
        while self.run("return document.readyState") != "complete":
            if time.monotonic() > deadline:
                raise RuntimeError(f"the page was not complete within {HANG_SECONDS} s")
            time.sleep(0.02)

    def run(self, script: str) -> Any:
        """The value of a script's `return`."""
        return self._call("POST", "/execute/sync", {"script": script, "args": []})

    def console(self) -> list[dict[str, Any]]:
        """Console messages since the last call."""
        return self._call("POST", "/se/log", {"type": "browser"})

    def requests(self) -> list[str]:
        """Addresses asked for since the last call."""
        entries = (json.loads(e["message"])["message"] for e in self._call("POST", "/se/log", {"type": "performance"}))
        return [e["params"]["request"]["url"] for e in entries if e["method"] == "Network.requestWillBeSent"]

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """Save a PNG of the window, or of the whole page."""
        made = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(made["data"]))

    def pdf(self) -> bytes:
        return base64.b64decode(self.devtools("Page.printToPDF", printBackground=True)["data"])

    def quit(self) -> None:
        self._call("DELETE", "")


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Start chromedriver and a session; end exactly these afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = subprocess.Popen([CHROMEDRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory(prefix="mdm-chromium-", ignore_cleanup_errors=True) as profile:
        try:
            session = _start(port, profile)
            try:
                yield session
            finally:
                session.quit()
        finally:
            driver.terminate()
            driver.wait(timeout=HANG_SECONDS)


def _start(port: int, profile: str) -> Browser:
    deadline = time.monotonic() + HANG_SECONDS
    while True:
        try:
            return Browser(f"http://127.0.0.1:{port}", profile)
        except urllib.error.URLError as error:
            if time.monotonic() > deadline:
                raise RuntimeError(f"chromedriver did not answer within {HANG_SECONDS} s: {error}") from None
            time.sleep(0.1)
