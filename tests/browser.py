"""A real browser, Debian's headless chromium, controlled over a pipe with its DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time

import pytest

CHROMIUM = shutil.which("chromium")
PATIENCE = 60.0  # seconds for anything; each takes a fraction of one
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"
)


class Browser:
    """A browser with one tab."""

    def __init__(self, profile):
        ours, theirs = os.pipe(), os.pipe()  # it reads ours as descriptor 3, and writes to theirs as 4
        self._write, self._read = ours[1], theirs[0]

        arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
        ]
        arguments += [
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-features=BackForwardCache",  # pages that were left are gone
            "--hide-scrollbars",
        ]
        self._process = subprocess.Popen(
            [
                "bash",
                "-c",
                f'exec "$@" 3<&{ours[0]} 4>&{theirs[1]}',
                "-",
                CHROMIUM,
                *arguments,
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(ours[0], theirs[1]),
            start_new_session=True,
        )
        os.close(ours[0])
        os.close(theirs[1])
        self._serial, self._rest, self._session, self._url = 0, b"", None, None
        self.requests, self.complaints = [], []
        target = self._page()
        self._session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Network", "Log", "Accessibility", "DOM"):
            self.call(f"{domain}.enable")

    def close(self):
        os.close(self._write)
        os.close(self._read)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, 9)
        self._process.wait()

    def _page(self):
        """Return the tab, which may come after the pipe."""
        deadline = time.monotonic() + PATIENCE
        while True:
            targets = self.call("Target.getTargets")["targetInfos"]
            pages = [each for each in targets if each["type"] == "page"]
            if pages:
                (page,) = pages
                return page
            assert time.monotonic() < deadline, "the browser opens no tab"
            time.sleep(0.05)

    def call(self, method, **parameters):
        """Call a method of the protocol and return its result."""
        self._serial += 1
        message = {"id": self._serial, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == self._serial:
                assert "error" not in told, told["error"]
                return told["result"]

    def _next(self):
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            data = os.read(self._read, 1 << 20)
            assert data, "the browser has ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        told = json.loads(line)
        match told.get("method"):
            case "Page.frameNavigated":
                self._url = told["params"]["frame"]["url"]
            case "Network.requestWillBeSent":
                self.requests.append(told["params"]["request"]["url"])
            case "Log.entryAdded" if told["params"]["entry"]["level"] in {"error", "warning"}:
                self.complaints.append(told["params"]["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.complaints.append(told["params"]["exceptionDetails"]["exception"].get("description"))
        return told

    def open(self, url, width=1280, height=900, scheme="light"):
        """Open *url* in a window of that size, with the colour scheme *scheme*."""
        self.show_to(width, height, scheme)
        # Another fragment alone would load nothing.  The page goes to the blank one itself: at our order the browser
        # would start another process for it, and one more for *url*, which is half of the cost.
        self._url = None
        self.run("location.replace('about:blank')")
        self.hear(lambda: self._url == "about:blank")
        # Complaints of the previous page, whose server may be gone, end here.
        self.requests.clear()
        self.complaints.clear()
        self.call("Page.navigate", url=url)

    def show_to(self, width, height=900, scheme="light"):
        """Give the window that size, and have a reader who prefers *scheme*; the page that is open stays."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def run(self, script):
        """Return the value of an expression in the page."""
        told = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def wait(self, script, skip=0):
        """Return once an expression is true, or stands for an element that there is.

        The clock of the page runs *skip* seconds ahead at each look.
        """
        deadline = time.monotonic() + PATIENCE
        while not self.run(f"(() => {{ try {{ return Boolean({script}) }} catch {{ return false }} }})()"):
            assert time.monotonic() < deadline, f"still false: {script}; the page: {self.text()!r}"
            if skip:
                self.skip(skip)
            time.sleep(0.05)

    def hear(self, is_told):
        """Return once *is_told* holds for what the browser has reported in the meantime."""
        deadline = time.monotonic() + PATIENCE
        while not is_told():
            assert time.monotonic() < deadline, f"never reported: {self.complaints}"
            time.sleep(0.05)
            self.run("0")

    def text(self):
        """Return the visible text."""
        return self.run("document.body.innerText")

    def skip(self, seconds):
        """Advance the page's clock by *seconds*, without running its timers."""
        self.run(f"void (Date.now = ((now) => () => now() + {1000 * seconds})(Date.now))")

    def press(self, key, text=None):
        """Press and release a key."""
        codes = {
            "Tab": 9,
            "Enter": 13,
            "Escape": 27,
            "Home": 36,
            "ArrowLeft": 37,
            "ArrowRight": 39,
            "End": 35,
        }
        common = {"key": key, "code": key, "windowsVirtualKeyCode": codes.get(key, 0)}
        if key == "Enter":
            text = "\r"
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def write(self, text):
        """Type *text* into the focused element."""
        self.call("Input.insertText", text=text)

    def screenshot(self, path):
        """Write a screenshot to *path*, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def accessible(self):
        """Return the nodes of the accessibility tree: role, name and value."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return [
            {
                "role": node["role"]["value"],
                "name": node.get("name", {}).get("value", ""),
                "value": node.get("value", {}).get("value"),
            }
            for node in nodes
            if not node["ignored"]
        ]


@contextlib.contextmanager
def browser(profile):
    """Yield a browser that keeps its files in the directory *profile*."""
    opened = Browser(profile)
    try:
        yield opened
    finally:
        opened.close()
