"""What a person can do with deliveries here: redeliver dead ones, or discard those that are dead or wait.

Each of those that were changed has an entry in Django's ``LogEntry``, written after every hundred, so that also what
was done before an error is on record. It is in the database of ``LogEntry``, which may be another one. Under
``ATOMIC_REQUESTS`` a request is one transaction: of one that fails, nothing is done and nothing on record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import PermissionDenied
from django.db import Error as DatabaseDriverError
from django.db.models import QuerySet
from django.http import HttpRequest

from deferred_signals.outbox import redelivery
from deferred_signals.outbox.models import OutboxDelivery, State
from deferred_signals.outbox.redelivery import Account, Left

from . import databases

#: Deliveries that one click is about, and reasons that are said of those that were left.
MOST, NAMED = 10_000, 5


@dataclass(frozen=True)
class Act:
    """One of the two. Its name is that of the permission, too."""

    name: str
    done: str
    states: tuple[State, ...]
    run: Callable[[QuerySet[OutboxDelivery]], Account]
    says: str

    @property
    def permission(self) -> str:
        """As Django names it."""
        return f"{OutboxDelivery._meta.app_label}.{self.name}"

    @property
    def group_url(self) -> str:
        """The name of the page on which it is done with a group of failures."""
        return f"{self.name}_group"

    def is_allowed(self, request: HttpRequest) -> bool:
        """Whether the user may do it."""
        return bool(request.user.has_perm(self.permission))

    def suits(self, row: OutboxDelivery) -> bool:
        """Whether there is something to do about a row."""
        return row.state in self.states


REDELIVER = Act(
    "redeliver",
    "Redelivered",
    (State.DEAD,),
    redelivery.redeliver,
    "They run again, as if for the first time, at once if a worker is free. Those that are not dead are left alone.",
)
DISCARD = Act(
    "discard",
    "Discarded",
    (State.DEAD, State.PENDING),
    redelivery.discard,
    "They are not run any more. What has finished, and what runs just now, is left alone.",
)
ACTS = (REDELIVER, DISCARD)


def require(request: HttpRequest, act: Act, model_admin: Any) -> None:
    """Raise PermissionDenied unless the user may see deliveries and do that."""
    if not (model_admin.has_view_permission(request) and act.is_allowed(request)):
        raise PermissionDenied


def perform(request: HttpRequest, act: Act, alias: str, numbers: Sequence[int]) -> None:
    """Do it with the rows of these numbers, record it, and tell the user."""
    changed, asked = 0, len(numbers)
    left: list[Left] = []
    try:
        for start in range(0, asked, redelivery.BATCH):
            part = numbers[start : start + redelivery.BATCH]
            account = act.run(databases.rows(alias).filter(number__in=part))
            _record(request, act, alias, account.numbers)
            changed += account.changed
            left += account.left
    except DatabaseDriverError as error:
        what = f"The database {alias} has failed: {type(error).__name__}. What was changed until then stays changed."
        messages.error(request, what)
    if changed:
        messages.success(request, f"{act.done} {deliveries(changed)}.")
    for one in left[:NAMED]:
        messages.warning(request, f"{one.delivery_id} was left as it is. {one.reason}")
    if len(left) > NAMED:
        messages.warning(request, f"{deliveries(len(left) - NAMED)} more were left as they are.")
    if not (changed or left):
        messages.warning(request, f"Nothing was there to {act.name}: see the states.")


def _record(request: HttpRequest, act: Act, alias: str, numbers: list[int]) -> None:
    rows = list(databases.rows(alias).filter(number__in=numbers).defer("payload", "traceback", "error"))
    if rows:
        said = f"{act.done} in the database {alias}."
        LogEntry.objects.log_actions(request.user.pk, rows, CHANGE, change_message=said)  # type: ignore[arg-type]


def deliveries(number: int) -> str:
    """A number of deliveries in words."""
    return f"{number:,} {'delivery' if number == 1 else 'deliveries'}"
