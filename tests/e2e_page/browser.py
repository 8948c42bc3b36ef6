"""A headless Chromium, driven by the DevTools protocol: one page, its console, its requests, its keys and its pictures."""

import base64
import itertools
import json
import os
import re
import signal
import time
import urllib.request

import websocket
from harness.system import Daemon, clean_environment, wait_until, which

DEADLINE = 15

# What a key is to Input.dispatchKeyEvent, where it is more than its own character.
_CODES = {"Enter": 13, "Escape": 27, "ArrowDown": 40, "ArrowUp": 38, "Home": 36, "End": 35, "PageDown": 34, "Tab": 9}


class Browser:
    """Everything that happened on the page since it was opened stands in `console`, `requests` and `violations`."""

    def __init__(self, folder, width=1440, height=900):
        self._folder = folder
        self._size = width, height
        self._ids = itertools.count(1)
        self.console, self.requests, self.violations, self.responses = [], [], [], {}

    def start(self):
        os.makedirs(self._folder, exist_ok=True)
        width, height = self._size
        self._daemon = Daemon("chromium", [
            which("chromium"), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-default-browser-check",
            "--remote-debugging-port=0", "--remote-allow-origins=*", f"--user-data-dir={self._folder}/profile",
            f"--window-size={width},{height}", "--force-device-scale-factor=1", "about:blank"],
            os.path.join(self._folder, "chromium.log"), stop_signal=signal.SIGTERM, env=clean_environment(HOME=self._folder))
        found = self._daemon.wait_until(lambda: re.search(r"DevTools listening on ws://(\S+?)/", self._daemon.log()), "chromium to listen", 30)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://{found.group(1)}/json", timeout=10) as answer:
            target = next(entry for entry in json.load(answer) if entry["type"] == "page")
        self._socket = websocket.create_connection(target["webSocketDebuggerUrl"], timeout=DEADLINE, http_no_proxy=["*"])
        for domain in ("Page", "Runtime", "Network", "Log", "Audits"):
            self.send(f"{domain}.enable")
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        return self

    def stop(self):
        self._socket.close()
        self._daemon.stop()

    # --- the protocol ---

    def send(self, method, **parameters):
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            message = json.loads(self._socket.recv())
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self._note(message)
        raise AssertionError(f"{method} was not answered within {DEADLINE} s")

    def _note(self, message):
        method, what = message.get("method"), message.get("params", {})
        if method == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning", "assert"):
            self.console.append(" ".join(str(entry.get("value", entry.get("description"))) for entry in what["args"]))
        elif method == "Runtime.exceptionThrown":
            details = what["exceptionDetails"]
            self.console.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
            self.console.append(f"{what['entry']['text']} {what['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(what["request"]["url"])
        elif method == "Network.responseReceived":
            self.responses[what["response"]["url"]] = what["response"]
        elif method == "Audits.issueAdded" and what["issue"]["code"] == "ContentSecurityPolicyIssue":
            self.violations.append(what["issue"])

    def forget(self):
        """What was seen so far."""
        self.console.clear(), self.requests.clear(), self.violations.clear(), self.responses.clear()

    # --- the page ---

    def open(self, url):
        self.send("Page.navigate", url="about:blank")  # a new document, even where only the part behind # differs
        self.forget()
        self.send("Page.navigate", url=url)
        self.wait(f"document.readyState === 'complete' && location.href.startsWith({json.dumps(url.split('#')[0])})", "the page to be loaded")

    def value(self, expression):
        """What a JavaScript expression gives, by value."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, f"{expression}: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    def wait(self, expression, what, deadline=DEADLINE):
        """Until the expression gives something true."""
        wait_until(lambda: self.value(f"Boolean({expression})"), what, deadline)

    def text(self, selector):
        return self.value(f"document.querySelector({json.dumps(selector)})?.innerText ?? null")

    def press(self, key):
        text = key if len(key) == 1 else "\r" if key == "Enter" else ""
        code = _CODES.get(key, ord(key.upper()) if len(key) == 1 else 0)
        event = {"key": key, "windowsVirtualKeyCode": code, **({"text": text} if text else {})}
        self.send("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **event)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def type(self, text):
        for character in text:
            self.press(character)

    def prefer(self, scheme, motion="no-preference"):
        """The system's wish: "light" or "dark"."""
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": motion}])

    def screenshot(self, path=None):
        picture = base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])
        if path:
            with open(path, "wb") as file:
                file.write(picture)
        return picture
