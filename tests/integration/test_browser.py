"""The example shop and the outbox's admin in a real Chromium: what people see, can do, and cannot.

The web server, the worker, the broker and the computers that receivers call are processes of their own. In all pages
that a test of these opens nothing is written to the console as an error, but for what it says there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.book_shop import ADMIN, BookShop, Chromium, Person
from tests.servers import Redis

from .conftest import covered, need

if TYPE_CHECKING:
    from playwright.sync_api import Browser

REPORT = "shop.receivers.report_to_publisher"
#: A title as an attacker would give a book: it says whether any of it ran.
HOSTILE = "<img src=x onerror=\"document.title='ran'\"><script>document.title = 'ran'</script>"
PAGES = ("", "failures/", "dashboard/", "map/")

Arrive = Callable[..., Person]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[BookShop, Browser]]:
    """One shop and one browser for the module: they take seconds to start."""
    with ExitStack() as ending:
        shop = BookShop(
            tmp_path_factory.mktemp("book_shop"),
            f"for title in ({HOSTILE!r}, 'Emma'):\n    Book.objects.create(title=title, author='Nobody')\n",
        )
        ending.callback(shop.close)
        yield shop, ending.enter_context(Chromium.launched())


@pytest.fixture
def arrive(request: pytest.FixtureRequest) -> Iterator[Arrive]:
    """Have somebody arrive, with a browser of their own."""
    need(request, Redis)
    need(request, Chromium)
    shop, browser = request.getfixturevalue("opened")
    covered(request, Redis.title, shop.broker.version)
    covered(request, Chromium.title, Chromium.version())
    people = []

    def arrive(**context: Any) -> Person:
        people.append(Person(shop, browser, **context))
        return people[-1]

    yield arrive
    for person in people:
        person.context.close()
    assert [error for person in people for error in person.errors] == []


def a_dead_report(person: Person, title: str) -> None:
    """Break the webhook, and order a book: the newest failure is then about that one.

    Each test orders a title of its own: by it this tells its lines in the journal from those of other tests.
    """
    person.has_the_webhook("broken")
    person.orders(title)
    person.sees_in_the_journal(REPORT, "dead", about=title)


def test_a_visitor_signs_up_and_sees_what_ran_where(arrive: Arrive):
    ada = arrive()
    ada.signs_up("ada")
    ada.sees_in_the_journal("shop.receivers.send_welcome_email", "succeeded")
    line = ada.page.locator("tr", has_text="send_welcome_email").first
    assert "worker" in line.inner_text()
    assert "web" in ada.page.locator("tr", has_text="create_profile").first.inner_text()


def test_what_is_rolled_back_sends_nothing(arrive: Arrive):
    grace = arrive()
    grace.goes_to("/")
    for name, value in {"username": "grace", "email": "grace@example.com"}.items():
        grace.page.fill(f"[name={name}]", value)
    for name in ("password1", "password2"):
        grace.page.fill(f"[name={name}]", "a long secret")
    grace.page.get_by_label("Fail after saving").check()
    grace.page.get_by_role("button", name="Sign up").click()
    grace.page.get_by_text("Rolled back: no user, no profile").wait_for()
    assert not grace.page.get_by_role("button", name="Sign out").count()


def test_a_broken_receiver_is_seen_in_its_group_redelivered_and_succeeds(arrive: Arrive):
    boss = arrive()
    boss.logs_in("boss")
    a_dead_report(boss, "Middlemarch")
    page = boss.page

    page.get_by_role("link", name="failures").click()
    group = page.locator(".ds-group", has_text="Middlemarch")
    assert re.search("[1-9] \u00d7 ", group.inner_text())
    assert "WebhookRefused" in group.inner_text()
    assert REPORT in group.inner_text()
    group.get_by_role("link", name="see it").click()
    timeline = page.locator(".ds-timeline").inner_text()
    assert "attempt 1: " in timeline
    assert "dead in attempt 2" in timeline
    delivery = urlsplit(page.url).path

    boss.has_the_webhook("mended")
    boss.goes_to(f"{ADMIN}failures/")
    group.get_by_role("link", name="Redeliver").click()
    page.get_by_role("button", name="Yes, redeliver").click()
    page.get_by_text("Redelivered ").wait_for()
    assert not group.count()

    boss.goes_to("/")
    boss.sees_in_the_journal(REPORT, "succeeded")

    def has_succeeded() -> bool:
        boss.goes_to(delivery)
        return "attempt 1 succeeded" in page.locator(".ds-timeline").inner_text()

    # The line in the journal may be about another one of the group.
    boss.shop.wait_until(has_succeeded, "the delivery succeeds")
    page.get_by_role("link", name="History").click()
    assert "Redelivered in the database default." in page.locator("#change-history").inner_text()


def test_html_in_an_error_is_text_and_nothing_of_it_runs(arrive: Arrive):
    boss = arrive()
    boss.logs_in("boss")
    a_dead_report(boss, "<img src=x")
    page, seen = boss.page, []
    assert HOSTILE in page.locator("tr", has_text=REPORT).first.inner_text()

    def is_text(where: str) -> None:
        page.wait_for_load_state("networkidle")
        assert page.title() != "ran", page.url
        assert not page.locator("main img[src=x], #content img[src=x]").count(), page.url
        assert "<img src" in page.locator(where).inner_text(), page.url
        seen.append(page.url)

    boss.goes_to(f"{ADMIN}failures/")
    group = page.locator(".ds-group", has_text="<img src=x")
    is_text(".ds-page")
    group.get_by_role("link", name="see it").click()
    is_text(".ds-timeline")
    is_text(".field-error_text")
    is_text(".field-traceback_text")
    page.get_by_role("link", name="Redeliver", exact=True).click()
    is_text("#content")
    boss.goes_to("/")
    is_text("#news")
    assert len(set(seen)) == 4


def token(person: Person) -> str:
    """What a form of the site would send along: these requests are refused for what they ask."""
    return next(str(one["value"]) for one in person.context.cookies() if one["name"] == "csrftoken")


def gets(person: Person, path: str) -> int:
    """The status of a page, asked for by its address."""
    return person.context.request.get(f"{person.shop.url}{path}", max_redirects=0).status


def posts(person: Person, path: str, **fields: str) -> int:
    """Send what a form would, as somebody who knows the address can; the status, without following a redirect."""
    url = f"{person.shop.url}{path}"
    form: dict[str, str | float | bool] = {"csrfmiddlewaretoken": token(person), "confirmed": "yes", **fields}
    return person.context.request.post(url, form=form, headers={"Referer": url}, max_redirects=0).status


def test_without_permission_nothing_is_seen_and_nothing_done(arrive: Arrive):
    boss = arrive()
    boss.logs_in("boss")
    a_dead_report(boss, "Persuasion")
    boss.goes_to(f"{ADMIN}failures/")
    group = boss.page.locator(".ds-group", has_text="Persuasion")
    one = urlsplit(str(group.get_by_role("link", name="see it").get_attribute("href"))).path.removesuffix("change/")
    of_group = urlsplit(str(group.get_by_role("link", name="Redeliver").get_attribute("href"))).path
    acts = [f"{one}redeliver/", f"{one}discard/", of_group, of_group.replace("/redeliver/", "/discard/")]
    pages = [*(f"{ADMIN}{name}" for name in PAGES), f"{one}change/", f"{one}history/"]

    for name in ("nobody", "actor"):
        person = arrive()
        person.logs_in(name)
        person.goes_to("/admin/")
        assert "Deliveries" not in person.page.locator("#content").inner_text()
        assert [gets(person, path) for path in [*pages, *acts]] == [403] * (len(pages) + len(acts))
        assert [posts(person, path) for path in acts] == [403] * len(acts)
        assert person.goes_to(ADMIN) == 403
        assert "403" in person.page.locator("body").inner_text()
        person.errors.clear()  # which the console has said, too

    viewer = arrive()
    viewer.logs_in("viewer")
    assert [gets(viewer, path) for path in pages] == [200] * len(pages)
    for path in (f"{ADMIN}failures/", f"{one}change/"):
        viewer.goes_to(path)
        assert not viewer.page.get_by_role("link", name=re.compile("^(Redeliver|Discard)")).count()
    viewer.goes_to(ADMIN)
    assert not viewer.page.locator("select[name=action]").count()
    assert [posts(viewer, path) for path in acts] == [403] * len(acts)
    number = one.rstrip("/").rpartition("/")[2]
    posts(viewer, ADMIN, action="discard_selected", _selected_action=number)

    stranger = arrive()
    stranger.goes_to(of_group)
    assert urlsplit(stranger.page.url).path == "/admin/login/"
    assert [gets(stranger, path) for path in [*pages, *acts]] == [302] * (len(pages) + len(acts))
    assert [posts(stranger, path) for path in acts] == [302] * len(acts)

    boss.goes_to(f"{one}change/")
    assert "dead" in boss.page.locator(".field-state").inner_text()


CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const pixel = colours => {
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1) }
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = element => {
    const found = [];
    for (let one = element; one; one = one.parentElement) {
      const box = one.querySelector(":scope > rect");
      if (box) found.unshift(getComputedStyle(box).fill);
      found.unshift(getComputedStyle(one).backgroundColor);
    }
    return ["white", ...found];
  };
  const poor = [];
  const roots = "main:not(:has(#content)) *, .ds-page *, .ds-timeline *, .ds-text";
  for (const element of document.querySelectorAll(roots)) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!own || ["STYLE", "SCRIPT", "TITLE", "DESC", "OPTION"].includes(element.tagName.toUpperCase())) continue;
    if (!element.checkVisibility({visibilityProperty: true})) continue;
    const style = getComputedStyle(element), layers = behind(element);
    const ink = element.tagName === "text" ? style.fill : style.color;
    const [a, b] = [luminance(pixel([...layers, ink])), luminance(pixel(layers))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${element.tagName}.${element.className} "${element.textContent.trim().slice(0, 30)}" ` +
      ratio.toFixed(2));
  }
  return poor;
}"""


@pytest.mark.parametrize(("scheme", "title"), [("light", "The Moonstone"), ("dark", "Emma")])
def test_every_page_can_be_read_in_light_and_in_dark(arrive: Arrive, scheme: str, title: str):
    boss = arrive(color_scheme=scheme)
    boss.logs_in("boss")
    a_dead_report(boss, title)
    boss.goes_to(f"{ADMIN}failures/")
    group = boss.page.locator(".ds-group", has_text=title)
    change = urlsplit(str(group.get_by_role("link", name="see it").get_attribute("href"))).path
    redeliver = urlsplit(str(group.get_by_role("link", name="Redeliver").get_attribute("href"))).path
    for path in ("/", *(f"{ADMIN}{name}" for name in PAGES), f"{ADMIN}map/?app=shop", change, redeliver):
        assert boss.goes_to(path) == 200
        painted = boss.page.evaluate("getComputedStyle(document.body).backgroundColor")
        is_dark = sum(map(int, re.findall(r"\d+", painted)[:3])) < 3 * 128
        assert is_dark == (scheme == "dark"), path
        assert boss.page.evaluate(CONTRASTS) == [], path
        assert boss.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} is too wide"


def test_the_map_is_drawn_filtered_and_a_table_besides(arrive: Arrive):
    viewer = arrive()
    viewer.logs_in("viewer")
    viewer.goes_to(ADMIN)
    page = viewer.page
    page.get_by_role("link", name="Signal map").click()
    page.get_by_label("App").select_option("shop")
    page.get_by_label("Receivers").select_option("Only deferred")
    page.get_by_role("button", name="Show").click()
    page.get_by_role("heading", name="5 connections").wait_for()
    drawing = page.get_by_role("img", name="Signals and receivers")
    assert REPORT in (drawing.text_content() or "")
    assert drawing.bounding_box()["width"] > 300  # type: ignore[index]
    names = page.locator(".ds-wide tbody th").all_inner_texts()
    assert REPORT in names
    assert len(names) == 5
    durable = page.locator("path.durable").first.evaluate("one => getComputedStyle(one).strokeWidth")
    assert durable == "2.5px", "the style sheet of the drawing is not there"


def test_the_debug_toolbar_shows_what_an_order_has_sent(arrive: Arrive):
    eve = arrive()
    eve.signs_up("eve")
    eve.has_the_webhook("mended")
    eve.orders("Middlemarch")
    eve.opens_the_toolbar_about_the_order()
    said = eve.page.locator("#DeferredSignalsPanel .djdt-scroll").inner_text()
    assert REPORT in said
    assert "order: shop.Order" in said
    assert "published, durable" in said
