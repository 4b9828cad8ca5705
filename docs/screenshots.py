"""Take the screenshots of these pages into ``_static/screenshots``: ``make screenshots``.

They are of the example shop, with its own web server, worker and broker, in the chromium of the system. They are not
compared with what the pages look like now, for times and fonts differ with each run; a test asks that each is small and
shown somewhere.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.book_shop import ADMIN, BookShop, Chromium, Person

SCREENSHOTS = Path(__file__).parent / "_static/screenshots"
WIDTH, HEIGHT = 1280, 800
REPORT = "shop.receivers.report_to_publisher"
ONLY_ONE_STAFF = 'User.objects.exclude(username="boss").delete(); User.objects.update(is_superuser=True)\n'

#: Orders before the visitor's; the webhook is broken while the last ones are placed.
ORDERS = """
from django.db import transaction
from shop.models import Book, Order, User, Webhook
from shop.signals import order_completed

books, customer = list(Book.objects.order_by("title")), User.objects.get(username="boss")
Webhook.objects.update(is_broken={broken})
for number in range({count}):
    with transaction.atomic():
        order = Order.objects.create(customer=customer, book=books[number % len(books)])
        order_completed.send(sender=Order, order=order)
"""
#: All have ended.
QUIET = """
from deferred_signals.outbox.models import OutboxDelivery
print("waiting", OutboxDelivery.objects.filter(finished=None).count())
"""
#: As if they had been placed in the course of the day: a chart of a minute is one bar. Only times are changed.
IN_THE_PAST = """
from datetime import timedelta
from django.db.models import F
from deferred_signals.outbox.models import Attempt, OutboxDelivery

rows = list(OutboxDelivery.objects.order_by("number"))
for place, row in enumerate(rows):
    ago = timedelta(hours=23 * (1 - place / len(rows)) ** 1.5)
    Attempt.objects.filter(row=row).update(started=F("started") - ago, ended=F("ended") - ago)
    OutboxDelivery.objects.filter(pk=row.pk).update(created=F("created") - ago, finished=F("finished") - ago)
"""
#: The same of those that no worker has run, as if there had been none for some hours.
WAITING = """
from datetime import timedelta
from django.db.models import F
from deferred_signals.outbox.models import OutboxDelivery

for place, row in enumerate(OutboxDelivery.objects.filter(finished=None).order_by("-number")):
    ago = timedelta(minutes=40 * place)
    OutboxDelivery.objects.filter(pk=row.pk).update(created=F("created") - ago, due=F("due") - ago)
"""
HIDE_TOOLBAR = "#djDebugRoot { display: none !important }"


def small(png: bytes) -> bytes:
    """The same in 128 colours, which nobody sees here, and a third of the bytes."""
    file = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()


def take(person: Person, name: str, *, high: int | None = None, toolbar: bool = False) -> None:
    """What the page shows, to the end of it or so many pixels high."""
    if not toolbar:
        person.page.add_style_tag(content=HIDE_TOOLBAR)
    person.page.wait_for_load_state("networkidle")
    whole = int(person.page.evaluate("document.documentElement.scrollHeight"))
    clip = {"x": 0, "y": 0, "width": WIDTH, "height": min(high or whole, whole)}
    png = small(person.page.screenshot(clip=clip, full_page=True))
    (SCREENSHOTS / f"{name}.png").write_bytes(png)
    sys.stdout.write(f"{name}.png: {len(png) / 1000:.0f} kB\n")


def history(shop: BookShop) -> None:
    """What has happened before the visitor comes."""
    for count, broken in ((12, False), (3, True)):
        shop.manage("shell", "-c", ORDERS.format(count=count, broken=broken))
        shop.wait_until(lambda: "waiting 0" in shop.manage("shell", "-c", QUIET), "all deliveries have ended")
    shop.manage("shell", "-c", IN_THE_PAST)


def of_the_shop(person: Person) -> None:
    person.signs_up("ada")
    person.has_the_webhook("mended")
    person.orders("Middlemarch")
    person.sees_in_the_journal("shop.receivers.reserve_at_warehouse", "succeeded")
    person.has_the_webhook("broken")
    person.orders("Persuasion")
    person.sees_in_the_journal(REPORT, "dead")
    person.sees_in_the_journal("shop.receivers.reserve_at_warehouse", "succeeded")
    person.sees_in_the_journal("shop.receivers.write_invoice", "succeeded")
    take(person, "shop", high=1000)


def of_the_toolbar(person: Person) -> None:
    person.goes_to("/")
    person.orders("The Moonstone")
    person.opens_the_toolbar_about_the_order()
    take(person, "toolbar", high=HEIGHT, toolbar=True)


def no_worker(shop: BookShop) -> None:
    """Orders that wait for one."""
    shop.worker.remove()
    shop.manage("shell", "-c", ORDERS.format(count=4, broken=False))
    shop.manage("shell", "-c", WAITING)


def of_the_admin(person: Person) -> None:
    person.logs_in("boss")
    person.goes_to(ADMIN)
    take(person, "deliveries", high=HEIGHT)
    person.goes_to(f"{ADMIN}failures/")
    person.page.get_by_text("Where").first.click()
    take(person, "failures", high=HEIGHT)
    person.page.get_by_role("link", name="see it").first.click()
    take(person, "delivery", high=900)
    person.goes_to(f"{ADMIN}map/?app=shop")
    take(person, "map")


def of_the_dashboard(person: Person, name: str) -> None:
    person.goes_to(f"{ADMIN}dashboard/")
    take(person, name)


def main() -> None:
    if missing := Chromium.missing():
        sys.exit(missing)
    SCREENSHOTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="book-shop-") as home:
        shop = BookShop(Path(home), ONLY_ONE_STAFF)
        try:
            history(shop)
            with Chromium.launched() as browser:
                look = {"viewport": {"width": WIDTH, "height": HEIGHT}, "color_scheme": "light"}
                visitor = Person(shop, browser, **look)
                of_the_shop(visitor)
                of_the_toolbar(visitor)
                shop.wait_until(lambda: "waiting 0" in shop.manage("shell", "-c", QUIET), "all deliveries have ended")
                boss = Person(shop, browser, **look)
                of_the_admin(boss)
                no_worker(shop)
                of_the_dashboard(boss, "dashboard")
                dark = Person(shop, browser, **look | {"color_scheme": "dark"})
                dark.logs_in("boss")
                of_the_dashboard(dark, "dashboard-dark")
        finally:
            shop.close()


if __name__ == "__main__":
    main()
