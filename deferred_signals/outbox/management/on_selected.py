"""What ``redeliver`` and ``discard_deliveries`` have in common: selecting, asking, progress, what was left."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, ClassVar, Protocol

from django.core.management.base import CommandError, CommandParser
from django.db import Error as DatabaseDriverError
from django.db.models import Count, QuerySet

from deferred_signals.doctor.findings import plain
from deferred_signals.management.terminal import ProgressLine, TerminalCommand, is_meant
from deferred_signals.outbox import selection
from deferred_signals.outbox.models import OutboxDelivery, State
from deferred_signals.outbox.redelivery import Account, Progress

#: From more than so many on, a terminal is shown how far it is.
MANY = 100


class Treatment(Protocol):
    """What is done with the rows of one database."""

    def __call__(self, rows: QuerySet[OutboxDelivery], progress: Progress, /) -> Account:
        """Do it, and tell after each batch how many rows it has looked at."""


class OnSelected(TerminalCommand):
    """Ends with 1 where a delivery that was asked for was left as it is."""

    #: What is done, as an order and when it is done.
    order: ClassVar[str]
    done: ClassVar[str]
    act: ClassVar[Treatment]
    #: More than so many are only changed after a question.
    unasked: ClassVar[int]
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """As Django asks."""
        selection.add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Select, ask, do, and tell."""
        try:
            self._handle(options)
        except DatabaseDriverError as error:
            reason = f"A database has failed: {type(error).__name__}: {error}".rstrip()
            raise CommandError(f"{reason}\nWhat was changed until then stays changed.") from None

    def _handle(self, options: dict[str, Any]) -> None:
        state = State(options.get("state", State.DEAD))
        chosen = {alias: selection.selected(alias, state, options) for alias in selection.aliases(options["database"])}
        groups = {alias: _groups(rows) for alias, rows in chosen.items()}
        total = sum(count for group in groups.values() for count in group.values())
        if options["dry_run"]:
            self._tell_groups(groups, total, as_json=options["json"])
            return
        left = self._not_there(chosen, options["ids"], state)
        if total > self.unasked and options["interactive"]:
            # What comes to be as asked for after the question, nobody says yes to.
            chosen = {alias: selection.as_they_are(rows, state) for alias, rows in chosen.items()}
            self._ask(groups, total, as_json=options["json"])
        changed = 0
        progress = ProgressLine(self.stderr, total, MANY)
        for alias, rows in chosen.items():
            account = self.act(rows, progress)
            changed += account.changed
            left += [
                {"database": alias, "id": str(id_), "receiver": to, "reason": why} for id_, to, why in account.left
            ]
        if not total and not options["ids"] and not options["json"]:
            self._tell_nothing(state)
        elif options["json"]:
            self.stdout.write(json.dumps({self.done.lower(): changed, "left": left}, indent=2))
        else:
            self.stdout.write(self.style.SUCCESS(f"{self.done} {_deliveries(changed)}."))
            for one in left:
                to = f" to {one['receiver']}" if one["receiver"] else ""
                self.stderr.write(plain(f"{one['id']}{to}: {one['reason']}"))
        if left:
            raise CommandError(f"{_deliveries(len(left))} left as {'it is' if len(left) == 1 else 'they are'}.")

    def _not_there(
        self, chosen: dict[str, QuerySet[OutboxDelivery]], ids: list[Any], state: State
    ) -> list[dict[str, str]]:
        if not ids:
            return []
        there = {id_ for rows in chosen.values() for id_ in rows.values_list("delivery_id", flat=True)}
        others = selection.in_other_states(chosen, ids, state)
        nothing = f"There is no {state.value} delivery of this id."
        return [
            {"database": "", "id": str(id_), "receiver": "", "reason": others.get(id_, nothing)}
            for id_ in dict.fromkeys(ids)
            if id_ not in there
        ]

    def _tell_nothing(self, state: State) -> None:
        name = type(self).__module__.rpartition(".")[2]
        which = f" --state {state.value}" if state != State.DEAD else ""
        self.stdout.write(
            f"{self.done} no delivery: no {state.value} one is as asked for. "
            f"manage.py {name}{which} --all --dry-run shows which there are."
        )

    def _ask(self, groups: dict[str, Counter[tuple[str, str]]], total: int, *, as_json: bool) -> None:
        if as_json:
            raise CommandError(f"It is about {_deliveries(total)}. Say --no-input if you mean it.")
        self._tell_groups(groups, total, as_json=False)
        where = ", ".join(alias for alias, group in groups.items() if group)
        is_meant(f"{self.order} {_deliveries(total)} of the database {where}?")

    def _tell_groups(self, groups: dict[str, Counter[tuple[str, str]]], total: int, *, as_json: bool) -> None:
        told = [
            {"database": alias, "receiver": receiver, "error_type": kind, "count": count}
            for alias, group in groups.items()
            for (receiver, kind), count in group.most_common()
        ]
        if as_json:
            self.stdout.write(json.dumps({"count": total, "groups": told}, indent=2))
            return
        for one in told:
            words = (str(one["receiver"] or "(could not be opened)"), str(one["error_type"]), f"[{one['database']}]")
            self.stdout.write(plain(f"{one['count']:>9,}  {'  '.join(word for word in words if word)}"))
        self.stdout.write(f"{total:>9,}  in all")


def _groups(rows: QuerySet[OutboxDelivery]) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for receiver, kind, count in rows.values_list("receiver", "error_type").annotate(count=Count("number")):
        found[receiver, kind] = count
    return found


def _deliveries(number: int) -> str:
    return f"{number:,} {'delivery' if number == 1 else 'deliveries'}"
