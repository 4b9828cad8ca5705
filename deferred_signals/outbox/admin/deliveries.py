"""The admin of deliveries: nothing is added or changed here, and nothing is seen or done without a permission.

``view`` is Django's own; ``redeliver`` and ``discard`` are ours, and need ``view`` besides.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.timesince import timesince

from deferred_signals.outbox import attempts
from deferred_signals.outbox.clock import DatabaseNow
from deferred_signals.outbox.models import OutboxDelivery

from . import databases, pages, paging, searching
from .acts import ACTS, DISCARD, MOST, REDELIVER, Act, perform, require
from .facts import FIELDSETS, Facts, timeline
from .filters import AgeFilter, DatabaseFilter, OriginFilter, ReceiverFilter, StateFilter

if TYPE_CHECKING:
    Base = admin.ModelAdmin[OutboxDelivery]
else:
    Base = admin.ModelAdmin


class DeliveryAdmin(Facts, Base):
    """What there is of deliveries, and what can be done with them."""

    list_display = ("delivery", "standing", "called", "age", "tried", "origin", "database")
    list_display_links = None
    list_filter = (DatabaseFilter, StateFilter, ReceiverFilter, OriginFilter, AgeFilter)
    search_fields = ("delivery_id", "receiver")  # that there is a search; see get_search_results
    search_help_text = searching.HELP
    # By the primary key: any other order would sort all rows.
    ordering = ("-number",)
    sortable_by = ()
    paginator = paging.BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_max_show_all = 0
    actions = ("redeliver_selected", "discard_selected")
    fieldsets = FIELDSETS
    readonly_fields = ("database", "error_text", "traceback_text", "payload_text")

    def get_queryset(self, request: HttpRequest) -> QuerySet[OutboxDelivery]:
        """The rows of the database that the request names."""
        rows = databases.rows(databases.alias_of(request)).order_by("-number")
        return rows.annotate(asked=DatabaseNow()).defer("payload", "error", "traceback")

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        """Without the database where there is only one to choose."""
        shown = self.list_display
        return shown if len(databases.aliases()) > 1 else tuple(name for name in shown if name != "database")

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        """Only what the filters ask: any other could look for what a payload hides, or take the database for long.

        Django would let everybody who may see the list name any column and any lookup in the URL.
        """
        return lookup in {getattr(one, "parameter_name", None) for one in self.list_filter}

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[OutboxDelivery], search_term: str
    ) -> tuple[QuerySet[OutboxDelivery], bool]:
        """See ``searching``."""
        found, said = searching.search(queryset, search_term)
        if said and request.method == "GET":
            # Where nothing was looked for, that is no news of a success, as which the admin shows an info.
            level = messages.WARNING if found.query.is_empty() else messages.INFO
            messages.add_message(request, level, said)
        return found, False

    @admin.display(description="delivery")
    def delivery(self, row: OutboxDelivery) -> SafeString:
        """A link to it, in its database."""
        link = pages.url(self, "change", row.number) + databases.query(self.database(row))
        return format_html('<a href="{}">{}</a>', link, row.delivery_id)

    @admin.display(description="state")
    def standing(self, row: OutboxDelivery) -> SafeString:
        """Its state, with the colour of that in the charts."""
        return format_html('<span class="ds-key ds-{}">{}</span>', row.state, row.get_state_display())

    @admin.display(description="receiver")
    def called(self, row: OutboxDelivery) -> SafeString:
        """Its receiver, which a narrow list may break after a dot."""
        return format_html_join(SafeString(".<wbr>"), "{}", ((part,) for part in row.receiver.split(".")))

    @admin.display(description="age")
    def age(self, row: Any) -> str:
        """Since it was written, by the database's clock."""
        return timesince(row.created, row.asked, depth=1)

    @admin.display(description="attempts")
    def tried(self, row: OutboxDelivery) -> str:
        """Which attempt it is at, and how many workers in a row were lost by it."""
        return f"{row.attempt} ({row.crashes} lost)" if row.crashes else str(row.attempt)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody has."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody has."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody has."""
        return False

    def has_redeliver_permission(self, request: HttpRequest) -> bool:
        """As Django asks it for the action."""
        return REDELIVER.is_allowed(request)

    def has_discard_permission(self, request: HttpRequest) -> bool:
        """As Django asks it for the action."""
        return DISCARD.is_allowed(request)

    def get_urls(self) -> list[URLPattern]:
        """Ours, before Django's own, the last of which takes everything."""
        prefix = f"{self.opts.app_label}_{self.opts.model_name}"
        wrap = self.admin_site.admin_view
        ours = [path(f"{one.name}/", wrap(partial(one.view, self)), name=f"{prefix}_{one.name}") for one in pages.PAGES]
        for act in ACTS:
            one, group = (partial(view, self, act=act) for view in (pages.act_on_one, pages.act_on_group))
            ours += [
                path(f"<int:number>/{act.name}/", wrap(one), name=f"{prefix}_{act.name}"),
                path(f"failures/<slug:key>/{act.name}/", wrap(group), name=f"{prefix}_{act.name}_group"),
            ]
        return [*ours, *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """The list, with the way to the other pages."""
        more: dict[str, Any] = {"most_counted": paging.MOST}
        if self.has_view_permission(request):
            more |= pages.surroundings(self, databases.alias_of(request))
        return super().changelist_view(request, {**more, **(extra_context or {})})

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> Any:
        """The page of one delivery."""
        more: dict[str, Any] = {}
        if self.has_view_permission(request) and (row := self.get_object(request, object_id)) is not None:
            acts = [act for act in pages.allowed(request) if act.suits(row)]
            links = [
                {"act": act, "url": pages.url(self, act.name, row.number) + databases.query(self.database(row))}
                for act in acts
            ]
            more = {**pages.surroundings(self, self.database(row)), "timeline": timeline(row), "links": links}
            more["most_attempts"] = attempts.MOST
        return super().change_view(request, object_id, form_url, {**more, **(extra_context or {})})

    @admin.action(permissions=["redeliver"], description="Redeliver selected dead deliveries")
    def redeliver_selected(self, request: HttpRequest, queryset: QuerySet[OutboxDelivery]) -> HttpResponse | None:
        """Ask, and do it."""
        return self._selected(request, queryset, REDELIVER)

    @admin.action(permissions=["discard"], description="Discard selected deliveries")
    def discard_selected(self, request: HttpRequest, queryset: QuerySet[OutboxDelivery]) -> HttpResponse | None:
        """Ask, and do it."""
        return self._selected(request, queryset, DISCARD)

    def _selected(self, request: HttpRequest, queryset: QuerySet[OutboxDelivery], act: Act) -> HttpResponse | None:
        require(request, act, self)
        alias = databases.alias_of(request)
        asked = queryset.filter(state__in=act.states).order_by("-number")
        if (newest := pages.newest_asked(request)) is not None:
            asked = asked.filter(number__lte=newest)
        numbers = list(asked.values_list("number", flat=True)[:MOST])
        if "confirmed" in request.POST:
            perform(request, act, alias, numbers)
            return None
        hidden = {
            "action": request.POST["action"],
            "select_across": request.POST.get("select_across", "0"),
            "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
            "checkbox": ACTION_CHECKBOX_NAME,
        }
        return pages.ask(self, request, act, alias, numbers, request.get_full_path(), **hidden)
