"""A headless Chromium driven through its DevTools protocol, over a pipe: no driver, no port."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")


def installed() -> str | None:
    """The program, if there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Chromium:
    """One page. `errors` are its console's, `requests` what left the browser for it."""

    def __init__(self, program: str, folder: Path) -> None:
        self._net_log = folder / "net.json"
        to_read, self._to = os.pipe()
        self._from, from_write = os.pipe()
        # the browser reads from 3 and writes to 4: keep both ends clear of these numbers
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_read, from_write)]
        command = [
            program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--remote-debugging-pipe", "--window-size=1680,1080", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={folder / 'profile'}", f"--log-net-log={self._net_log}",
            "about:blank",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{ends[0]} 4>&{ends[1]}', "bash", *command],
            pass_fds=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (to_read, from_write, *ends):
            os.close(end)
        self._left, self._number, self._session = b"", 0, {}
        self.errors: list[str] = []
        targets = self._call("Target.getTargets")["targetInfos"]
        [page] = [target["targetId"] for target in targets if target["type"] == "page"]
        attached = self._call("Target.attachToTarget", targetId=page, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Log", "Page", "Runtime"):
            self._call(f"{domain}.enable")

    def open(self, url: str) -> None:
        self._call("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; RuntimeError if it throws."""
        response = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in response:
            raise RuntimeError(response["exceptionDetails"])
        return response["result"].get("value")

    def wait_for(self, expression: str, seconds: float) -> None:
        """Return once `expression` is true; TimeoutError if it never is."""
        end = time.monotonic() + seconds
        while not self.evaluate(expression):
            if time.monotonic() > end:
                raise TimeoutError(expression)
            time.sleep(0.25)

    def resize(self, width: int, height: int) -> None:
        """Give the page another size, in pixels."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def click(self, x: float, y: float) -> None:
        """Click where the page shows it, in pixels."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def settle(self, seconds: float = 4) -> None:
        """Let charts finish their transitions."""
        time.sleep(seconds)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot")["data"]))

    def close(self) -> None:
        if self._process.poll() is not None:
            return
        self._session = {}
        self._call("Browser.close")
        self._process.wait(timeout=30)
        os.close(self._to)
        os.close(self._from)

    def requests(self) -> list[str]:
        """Every address that pages and their workers asked for; known once it is closed.

        What the browser itself asks its maker for, spelling and accounts, has no page's origin.
        """
        log = json.loads(self._net_log.read_text())
        requests = (event.get("params", {}) for event in log["events"])
        return [
            params["url"] for params in requests
            if params.get("initiator", "not an origin") != "not an origin"
        ]  # fmt: skip

    def _call(self, method: str, **params: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params, **self._session}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:
            self._note(answer.get("method"), answer.get("params", {}))
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _read(self) -> Any:
        while b"\0" not in self._left:
            if not select.select([self._from], [], [], 120)[0]:
                raise TimeoutError("the browser says nothing")
            self._left += os.read(self._from, 1 << 20)
        message, _, self._left = self._left.partition(b"\0")
        return json.loads(message)

    def _note(self, method: str | None, response: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(response["exceptionDetails"]))
        if method == "Runtime.consoleAPICalled" and response["type"] == "error":
            self.errors.append(json.dumps(response["args"]))
        if method == "Log.entryAdded" and response["entry"]["level"] == "error":
            self.errors.append(f"{response['entry']['text']} {response['entry'].get('url', '')}")
