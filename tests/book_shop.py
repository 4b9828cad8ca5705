"""The shop of ``example_project`` as somebody with a browser meets it: every part a real process. And the browser."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.deploy_files import EXAMPLE
from tests.servers import Process, Redis, free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

DEADLINE = 30.0
#: Of everybody here.
PASSWORD = "a long secret"
ADMIN = "/admin/deferred_signals_outbox/outboxdelivery/"
#: Those of the staff, by what they may do.
STAFF = {
    "boss": ("view_outboxdelivery", "redeliver", "discard"),
    "viewer": ("view_outboxdelivery",),
    "actor": ("redeliver", "discard"),
    "nobody": (),
}
_SETUP = f"""
from django.contrib.auth.models import Permission
from django.core.management import call_command
from deferred_signals import suppress

call_command("migrate", verbosity=0)
from shop.models import Book, User

with suppress():
    for name, codenames in {STAFF!r}.items():
        user = User.objects.create_user(name, f"{{name}}@example.com", {PASSWORD!r}, is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
"""


class Chromium:
    """The browser: one of the system, never one that is downloaded."""

    title = "Chromium"

    @classmethod
    def path(cls) -> str | None:
        """``DEFERRED_SIGNALS_TEST_CHROMIUM``, or what is found."""
        named = os.environ.get("DEFERRED_SIGNALS_TEST_CHROMIUM")
        return named or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

    @classmethod
    def missing(cls) -> str:
        """Why it cannot be had, empty if it can."""
        if importlib.util.find_spec("playwright") is None:
            return "the package playwright is not installed"
        return "" if cls.path() else "no chromium; DEFERRED_SIGNALS_TEST_CHROMIUM may name one"

    @classmethod
    @functools.cache
    def version(cls) -> str:
        """As it says itself."""
        done = subprocess.run([str(cls.path()), "--version"], capture_output=True, text=True, timeout=60, check=True)
        return done.stdout.strip()

    @classmethod
    @contextmanager
    def launched(cls) -> Iterator[Browser]:
        """A headless one."""
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=cls.path())
            yield browser
            browser.close()


class BookShop:
    """Broker, worker, web server, and the stand-in for the warehouse and the publisher; ready when it is made.

    ``setup`` is Python that runs before, when the tables and the staff are there.
    """

    def __init__(self, home: Path, setup: str = "") -> None:
        self.home = home
        self.processes: list[Process] = []
        self.broker = Redis(home).wait_ready()
        self.processes.append(self.broker)
        web, elsewhere = free_port(), free_port()
        self.url = f"http://127.0.0.1:{web}"
        self.env = {
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "DEBUG": "1",
            "DATA_DIR": str(home / "data"),
            "BROKER_URL": f"redis://127.0.0.1:{self.broker.port}/0",
            "WAREHOUSE_URL": f"http://127.0.0.1:{elsewhere}",
            "PYTHONPATH": os.pathsep.join([str(EXAMPLE), str(EXAMPLE.parent)]),
            "PYTHONUNBUFFERED": "1",
        }
        try:
            self.manage("shell", "-c", _SETUP + setup)
            options = ["--pool=prefork", "--concurrency=2", "--loglevel=INFO", "--without-mingle", "--without-gossip"]
            self.worker = self._start("-m", "celery", "-A", "config", "worker", *options)
            self._start(str(EXAMPLE / "warehouse.py"), str(elsewhere), port=elsewhere).wait_ready()
            self._start(str(EXAMPLE / "manage.py"), "runserver", "--noreload", str(web), port=web).wait_ready()
            self.wait_until(lambda: b" ready." in self.worker.logs(), "the worker is ready")
        except BaseException:
            self.close()
            raise

    def _argv(self, *arguments: str) -> list[str]:
        # The toolbar refuses to run in tests, by the first; the shop would take another database, by the second.
        return ["env", "-u", "PYTEST_VERSION", "-u", "PGDATABASE", sys.executable, *arguments]

    def _start(self, *arguments: str, port: int | None = None) -> Process:
        process = Process(self._argv(*arguments), home=self.home, env=self.env, port=port)
        self.processes.append(process)
        return process

    def manage(self, *words: str) -> str:
        """Run ``manage.py`` and return what it prints."""
        argv, env = self._argv(str(EXAMPLE / "manage.py"), *words), {**os.environ, **self.env}
        done = subprocess.run(argv, env=env, cwd=self.home, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, f"not in {DEADLINE:.0f} s: {what}\n{self.logs()}"
            time.sleep(0.05)

    def logs(self) -> str:
        """All of them, for whoever must find out why."""
        return "\n".join(f"--- {one.name}\n{one.logs().decode(errors='replace')}" for one in self.processes)

    def close(self) -> None:
        for process in reversed(self.processes):
            process.remove()


class Person:
    """Somebody at a browser of their own."""

    def __init__(self, shop: BookShop, browser: Browser, **context: Any) -> None:
        self.shop = shop
        self.context: BrowserContext = browser.new_context(base_url=shop.url, **context)
        self.context.set_default_timeout(DEADLINE * 1000)
        self.page: Page = self.context.new_page()
        #: What went wrong in the pages; a page that answers 4xx is said by the console, too.
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._hear)

    def _hear(self, said: ConsoleMessage) -> None:
        # Django's admin has no icon, for which each browser asks.
        if said.type == "error" and not said.location["url"].endswith("/favicon.ico"):
            self.errors.append(f"{said.text} {said.location['url']}")

    def goes_to(self, path: str) -> int:
        """Open a page; the status of its answer, after all redirects."""
        answer = self.page.goto(path)
        assert answer
        return answer.status

    def signs_up(self, name: str) -> None:
        self.goes_to("/")
        self.page.fill("[name=username]", name)
        self.page.fill("[name=email]", f"{name}@example.com")
        self.page.fill("[name=password1]", PASSWORD)
        self.page.fill("[name=password2]", PASSWORD)
        self.page.get_by_role("button", name="Sign up").click()
        self.page.get_by_text(f"Welcome, {name}!").wait_for()

    def logs_in(self, name: str) -> None:
        """To the admin."""
        self.goes_to("/admin/login/?next=/")
        self.page.fill("[name=username]", name)
        self.page.fill("[name=password]", PASSWORD)
        self.page.get_by_role("button", name="Log in").click()
        self.page.get_by_role("button", name="Sign out").wait_for()

    def has_the_webhook(self, state: str) -> None:
        """``broken`` or ``mended``, whatever it was."""
        self.goes_to("/")
        button = self.page.get_by_role("button", name="Break it" if state == "broken" else "Mend it")
        if button.count():
            button.click()
        self.page.get_by_text("It is broken" if state == "broken" else "It answers.").wait_for()

    def orders(self, title: str) -> None:
        self.page.locator("li", has_text=title).get_by_role("button", name="Order").click()
        self.page.get_by_role("status").get_by_text("is on its way").wait_for()

    def sees_in_the_journal(self, what: str, state: str, about: str = "") -> None:
        """Wait for the newest line of a receiver, of those with that text, to have that state.

        The page looks by itself each second.
        """
        newest = self.page.locator(f"tr:has(code:text-is('{what}'))").filter(has_text=about).first
        newest.locator(f"td.{state}").wait_for()

    def opens_the_toolbar_about_the_order(self) -> None:
        """The last order was a POST that redirected: it is in the toolbar's history."""
        page = self.page
        page.locator("#djShowToolBarButton, #djShowToolBarHandle").first.click()
        page.locator("#djdt-HistoryPanel a.HistoryPanel").click()
        switch = page.locator("#HistoryPanel tr", has_text="/order/").first.get_by_role("button", name="Switch")
        panel = page.locator("#djdt-DeferredSignalsPanel")

        def is_switched() -> bool:
            # Again: the toolbar draws the history anew when it is opened, and a click before that is in vain.
            switch.click()
            page.wait_for_load_state("networkidle")
            return "4 deliveries" in panel.inner_text()

        self.shop.wait_until(is_switched, "the toolbar shows the order")
        panel.locator("a.DeferredSignalsPanel").click()
        page.locator("#DeferredSignalsPanel .djdt-scroll").get_by_text("shop.signals.order_completed").first.wait_for()
