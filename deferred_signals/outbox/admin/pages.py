"""The pages beside the list: dashboard, failures in groups, signal map, and the questions before something is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.core.exceptions import BadRequest, PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from deferred_signals.outbox import failures
from deferred_signals.outbox.models import OutboxDelivery

from . import charts, databases
from .acts import ACTS, DISCARD, Act, deliveries, perform, require
from .figures import PARKED, Figures, figures
from .mapped import mapped

#: Deliveries that a question shows.
SHOWN = 20
#: The field of its form for the highest number that it is about.
NEWEST = "newest"
_FOLDER = "admin/deferred_signals_outbox/outboxdelivery"
_PREFIX = f"{OutboxDelivery._meta.app_label}_{OutboxDelivery._meta.model_name}"


@dataclass(frozen=True)
class Page:
    """A page that the list links to; its name is a part of its URL."""

    name: str
    title: str
    view: Callable[[Any, HttpRequest], HttpResponse]


def dashboard(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """How the outbox of a database does."""
    alias = _allowed_alias(model_admin, request)
    found = figures(alias)
    more = {
        "figures": found,
        "oldest": _for(found.oldest),
        "overdue": _for(found.overdue),
        "charts": _charts(found),
        "parked": found.parked[:PARKED],
        "more_parked": len(found.parked) > PARKED,
    }
    return render(model_admin, request, "dashboard", "Dashboard", alias, more)


def _for(seconds: float | None) -> str:
    return "none" if seconds is None else str(timedelta(seconds=int(seconds)))


def _charts(found: Figures) -> list[dict[str, Any]]:
    shown = [("Finished deliveries", found.finished), ("Failed attempts", found.failed)]
    ended = [charts.with_numbers(title, hours) for title, hours in shown if hours]
    return [charts.with_numbers("Not finished, by age", found.unfinished, and_before=True), *ended]


def failed(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """The dead deliveries in groups."""
    alias = _allowed_alias(model_admin, request)
    groups = failures.groups(alias)
    is_all = sum(one.count for one in groups) < failures.MOST
    more = {"groups": groups, "is_all": is_all, "most": failures.MOST, "acts": allowed(request)}
    return render(model_admin, request, "failures", "Failures by cause", alias, more)


def signal_map(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """Who sends and who listens. Of no database; the links go on with the one that they came with."""
    alias = _allowed_alias(model_admin, request)
    return render(model_admin, request, "map", "Signal map", alias, mapped(request))


PAGES = (
    Page("dashboard", "Dashboard", dashboard),
    Page("failures", "Failures", failed),
    Page("map", "Signal map", signal_map),
)


def act_on_one(model_admin: Any, request: HttpRequest, number: int, act: Act) -> HttpResponse:
    """Ask whether to do something with one delivery, and do it."""
    require(request, act, model_admin)
    alias = databases.alias_of(request)
    back = url(model_admin, "change", number) + databases.query(alias)
    if not databases.rows(alias).filter(number=number).exists():
        raise Http404("There is no such delivery.")
    return _act(model_admin, request, act, alias, [number], back)


def act_on_group(model_admin: Any, request: HttpRequest, key: str, act: Act) -> HttpResponse:
    """The same with a group of failures."""
    require(request, act, model_admin)
    alias = databases.alias_of(request)
    group = failures.group(alias, key)
    back = url(model_admin, "failures") + databases.query(alias)
    if group is None:
        raise Http404("There is no such group of failures any more.")
    return _act(model_admin, request, act, alias, group.numbers, back)


def _act(
    model_admin: Any, request: HttpRequest, act: Act, alias: str, numbers: Sequence[int], back: str
) -> HttpResponse:
    if request.method == "POST":
        if (newest := newest_asked(request)) is not None:
            numbers = [number for number in numbers if number <= newest]
        perform(request, act, alias, numbers)
        return HttpResponseRedirect(back)
    return ask(model_admin, request, act, alias, numbers, back)


def newest_asked(request: HttpRequest) -> int | None:
    """The highest number that the question was about: what was written since, nobody has said yes to.

    An older one that has died since is not told from those. None if it does not say, as of a request that comes without
    a question. Raises BadRequest.
    """
    if (said := request.POST.get(NEWEST)) is None:
        return None
    try:
        return int(said)
    except ValueError as error:
        raise BadRequest(f"{NEWEST} is no number.") from error


def ask(
    model_admin: Any, request: HttpRequest, act: Act, alias: str, numbers: Sequence[int], back: str, **more: Any
) -> HttpResponse:
    """The question before something is done; its answer is a POST to the same place."""
    shown = databases.rows(alias).filter(number__in=numbers[:SHOWN]).order_by("-number")
    context = {
        "act": act,
        "is_discard": act is DISCARD,
        "count": deliveries(len(numbers)),
        "newest_field": NEWEST,
        "newest": max(numbers, default=0),
        "rows": shown.defer("payload", "traceback"),
        "hidden": len(numbers) > SHOWN,
        "back": back,
        **more,
    }
    return render(model_admin, request, "confirm", f"{act.name.capitalize()}?", alias, context)


def render(
    model_admin: Any, request: HttpRequest, template: str, title: str, alias: str, more: dict[str, Any]
) -> HttpResponse:
    """A page of the admin's site."""
    request.current_app = model_admin.admin_site.name
    context = {
        **model_admin.admin_site.each_context(request),
        **surroundings(model_admin, alias),
        "title": title,
        "opts": model_admin.opts,
        "aliases": databases.aliases(),
        **more,
    }
    return TemplateResponse(request, f"{_FOLDER}/{template}.html", context)


def surroundings(model_admin: Any, alias: str) -> dict[str, Any]:
    """What all pages about a database show: the way to the others."""
    query = databases.query(alias)
    pages = [{"title": one.title, "url": url(model_admin, one.name) + query} for one in PAGES]
    return {"alias": alias, "database_query": query, "pages": pages}


def allowed(request: HttpRequest) -> list[Act]:
    """What the user may do."""
    return [act for act in ACTS if act.is_allowed(request)]


def url(model_admin: Any, name: str, *arguments: Any) -> str:
    """The path of a page of this admin."""
    return reverse(f"admin:{_PREFIX}_{name}", args=arguments, current_app=model_admin.admin_site.name)


def _allowed_alias(model_admin: Any, request: HttpRequest) -> str:
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    return databases.alias_of(request)
