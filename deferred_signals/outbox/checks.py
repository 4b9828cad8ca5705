"""System checks of the outbox: its app, its tables, the databases from which durable deliveries are sent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.db import DEFAULT_DB_ALIAS, connections, router

from deferred_signals import conf, keeping, registry
from deferred_signals.exceptions import ConfigurationError
from deferred_signals.references import is_model, model_by_label

from .clock import now_sql
from .models import Attempt, OutboxDelivery
from .tables import has_table

#: Seconds of a lease that a busy worker may fail to renew in time.
_SHORT = 3.0


def check_outbox(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """E302 to E304, W302 to W305: what can be known without asking a database."""
    if not apps.is_installed("deferred_signals"):
        return [
            checks.Error(
                "'deferred_signals.outbox' is installed without 'deferred_signals', so workers run nothing.",
                hint="INSTALLED_APPS = [..., 'deferred_signals', 'deferred_signals.outbox']",
                id="deferred_signals.E302",
            )
        ]
    if not settings_are_right():
        return []
    return [*_databases(), *_twins(), *_notify(), *_leases()]


def check_tables(
    app_configs: Sequence[Any] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[checks.CheckMessage]:
    """W301: a database has no table. A warning, for ``migrate`` runs this check before it makes the table."""
    if not settings_are_right():
        return []
    sending = senders()
    found: list[checks.CheckMessage] = []
    for alias in databases or ():
        who = sending.get(alias, set())
        # The dead are kept here, whatever mode they were sent in, and the unpublished.
        is_home = alias == router.db_for_write(OutboxDelivery)
        if not (who or is_home) or not router.allow_migrate_model(alias, OutboxDelivery):
            continue
        if not has_table(alias):
            cost = f"durable deliveries to {', '.join(sorted(who))} cannot be sent" if who else "nothing can be kept"
            found.append(_missing(alias, f"no table of the outbox yet: {cost}."))
        elif not has_table(alias, Attempt):
            found.append(_missing(alias, "not all tables of the outbox yet: attempts that fail are not noted down."))
    return found


def _missing(alias: str, what: str) -> checks.CheckMessage:
    return checks.Warning(
        f"The database {alias!r} has {what}",
        hint=f"manage.py migrate --database {alias} deferred_signals_outbox, before the release starts.",
        id="deferred_signals.W301",
    )


def check_relay(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """I301: no worker runs the relay."""
    if not settings_are_right() or conf.current().relay:
        return []
    return [
        checks.Info(
            "DEFERRED_SIGNALS['RELAY'] is False: no worker runs the relay. Without one, retries and what was left over "
            "when a broker or worker was lost wait for ever.",
            hint="Run manage.py relay_outbox as a service. If you do, silence this check.",
            id="deferred_signals.I301",
        )
    ]


def settings_are_right() -> bool:
    """Whether E001 has nothing to say of them."""
    return not conf.read(getattr(settings, "DEFERRED_SIGNALS", None) or {})[1]


def senders() -> dict[str, set[str]]:
    """The receivers of durable deliveries by the alias on which they are sent, as far as connections tell."""
    found = defaultdict[str, set[str]](set)
    for registration in registry.registrations():
        for stand_in in registration.connections():
            if keeping.is_wanted(stand_in.options):
                sender = stand_in.sender
                model: Any = model_by_label(sender) if isinstance(sender, str) else sender
                by_rule = router.db_for_write(model) if is_model(model) else DEFAULT_DB_ALIAS
                found[stand_in.options.using or by_rule].add(registration.name)
    return {alias: names for alias, names in found.items() if alias in connections}  # else E004 says so


def _databases() -> Iterator[checks.CheckMessage]:
    for alias, receivers in sorted(senders().items()):
        who = ", ".join(sorted(receivers))
        try:
            now_sql(connections[alias])
        except ConfigurationError as error:
            yield checks.Error(
                f"Durable deliveries to {who} are sent on {alias!r}. {error}",
                hint="Connect them without durable=True, or with using= another database.",
                id="deferred_signals.E304",
            )
            continue
        if not router.allow_migrate_model(alias, OutboxDelivery):
            yield checks.Error(
                f"Durable deliveries to {who} are sent on {alias!r}, and your database routers allow no table of the "
                "outbox there. Their rows must be in the sender's own transaction, so in its own database.",
                hint=f"Let allow_migrate({alias!r}, 'deferred_signals_outbox') be true, and migrate that database.",
                id="deferred_signals.E303",
            )


#: What says where a database is; of its options, what may lead elsewhere.
_PLACE = ("ENGINE", "HOST", "PORT", "NAME")
_ELSEWHERE = ("options", "service", "read_default_file", "init_command")


def _twins() -> Iterator[checks.CheckMessage]:
    """Aliases of one database have one table, and no row says by which of them it was sent."""
    sending, by_place = senders(), defaultdict[str, list[str]](list)
    for alias in connections:
        settings_of = connections[alias].settings_dict
        options = settings_of["OPTIONS"]
        place = [settings_of[name] for name in _PLACE] + [options.get(name) for name in _ELSEWHERE]
        if settings_of["NAME"] != ":memory:" and router.allow_migrate_model(alias, OutboxDelivery):
            by_place[repr(place)].append(alias)
    for aliases in by_place.values():
        names = {name for alias in aliases for name in sending.get(alias, ()) if registry.get(name).options.atomic}
        if len(aliases) > 1 and names:
            yield checks.Warning(
                f"{' and '.join(map(repr, aliases))} are one database. The relay may ring on either, and the "
                f"transaction of {', '.join(sorted(names))} (atomic) is on the alias that is rung on.",
                hint="Let allow_migrate(alias, 'deferred_signals_outbox') be false for all but the one that sends.",
                id="deferred_signals.W305",
            )


def _notify() -> Iterator[checks.CheckMessage]:
    if conf.current().notify and not any(connections[alias].vendor == "postgresql" for alias in connections):
        yield checks.Warning(
            "DEFERRED_SIGNALS['NOTIFY'] is on, and no database is PostgreSQL: it changes nothing.",
            hint="Leave it out.",
            id="deferred_signals.W302",
        )


def _leases() -> Iterator[checks.CheckMessage]:
    lease = conf.current().lease
    if lease < _SHORT:
        yield checks.Warning(
            f"DEFERRED_SIGNALS['LEASE'] is {lease:g} s. A worker that is busy for so long loses what it runs to "
            "another one, and the receiver runs twice.",
            hint="LEASE is renewed while a receiver runs, so it need not be short: 30 is the default.",
            id="deferred_signals.W303",
        )
    for alias, receivers in sorted(senders().items()):
        for name in sorted(receivers) if connections[alias].vendor == "sqlite" else ():
            receiver = registry.get(name)
            # Limits are each connection's own.
            limits = [one.options.time_limit or one.options.soft_time_limit or 0 for one in receiver.connections()]
            if receiver.options.atomic and (limit := max(limits)) >= lease:
                yield checks.Warning(
                    f"The deferred receiver {name!r} is atomic and may run for {limit:g} s. In a transaction on SQLite "
                    f"its lease of {lease:g} s cannot be renewed: if that runs out, what it writes is rolled back.",
                    hint=f"DEFERRED_SIGNALS = {{'LEASE': {2 * limit:g}}}, or a shorter time_limit.",
                    obj=name,
                    id="deferred_signals.W304",
                )
