"""The tools of demo.py: the terminal, processes that end with us, and a browser."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, HTTPRedirectHandler, ProxyHandler, build_opener

PROJECT = Path(__file__).resolve().parent
HOST = "127.0.0.1"
PATIENCE = 30.0  # seconds that anything may take

T = TypeVar("T")


class DemoFailed(Exception):
    """Something that had to happen did not."""


# On the terminal


def styled(code: int, text: object) -> str:
    colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return f"\033[{code}m{text}\033[0m" if colours else str(text)


def bold(text: object) -> str:
    return styled(1, text)


def say(label: str = "", text: object = "") -> None:
    print(f"   {styled(2, label.ljust(10))} {text}", flush=True)


def title(text: str) -> None:
    print(f"\n{bold(text)}", flush=True)


# Processes


class Processes:
    """Python processes with a log each; all of them end with the ``with`` block."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave anything behind
        for process in self.running.values():
            # With its children, and at once: nothing of it is kept, so nothing needs time to end well.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def start(self, name: str, *arguments: str) -> int:
        """Start ``python *arguments`` and return its pid."""
        with self.log(name).open("wb") as log:
            # In a session of its own, so that Ctrl-C in the terminal is for us alone.
            self.running[name] = subprocess.Popen(
                [sys.executable, *arguments], cwd=PROJECT, stdout=log, stderr=log, start_new_session=True
            )
        return self.running[name].pid

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def wait_for(self, what: str, condition: Callable[[], T]) -> T:
        """What the condition returns as soon as that is true; DemoFailed if it takes too long or a process ends."""
        deadline = time.monotonic() + PATIENCE
        while not (found := condition()):
            for name, process in self.running.items():
                if process.poll() is not None:
                    raise DemoFailed(f"{what}: the {name} process ended with code {process.returncode}")
            if time.monotonic() > deadline:
                raise DemoFailed(f"{what}: not within {PATIENCE:.0f} s")
            time.sleep(0.02)
        return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


# A visitor and her browser


class NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        """Do not follow: the answer to the POST alone is timed."""


class Visitor:
    """Keeps cookies, and sends the CSRF token that the page gave her."""

    def __init__(self, site: str) -> None:
        self.site = site
        self.cookies = CookieJar()
        self.opener = build_opener(ProxyHandler({}), HTTPCookieProcessor(self.cookies), NoRedirect())

    def get(self, path: str) -> str:
        with self.opener.open(self.site + path, timeout=PATIENCE) as page:
            return str(page.read().decode())

    def post(self, path: str, **fields: str) -> float:
        """Send a form; return the milliseconds until the redirect came that says it was taken."""
        self.get("/")
        token = next(cookie.value for cookie in self.cookies if cookie.name == "csrftoken")
        form = urlencode({**fields, "csrfmiddlewaretoken": token}).encode()
        start = time.perf_counter()
        try:
            answer = self.opener.open(self.site + path, form, timeout=PATIENCE)
        except HTTPError as redirect:  # to urllib a redirect that nobody follows is an error
            answer = redirect
        milliseconds = (time.perf_counter() - start) * 1000
        with answer:
            if answer.status != 302:
                raise DemoFailed(f"POST {path} was answered with {answer.status}")
        return milliseconds

    def sign_up(self, name: str, **fields: str) -> float:
        fields |= {"username": name, "email": f"{name}@example.com"}
        return self.post("/sign-up/", password1="a long secret", password2="a long secret", **fields)
