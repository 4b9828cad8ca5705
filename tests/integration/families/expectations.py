"""What the words of the table mean: which values a row is about, what is on the wire, and what should arrive."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

from django.contrib.auth.models import AnonymousUser
from django.db.models import Model, QuerySet
from django.db.models.base import ModelBase
from django.utils.functional import LazyObject

from deferred_signals import NotCarried
from deferred_signals.codec.base import type_name
from deferred_signals.codec.migrate import MigrationSnapshot
from deferred_signals.codec.requests import RequestSnapshot

from . import table


class Unsendable:
    """A type that the codec does not know."""


class Local(NamedTuple):
    """Stands for an object that is the worker's own and cannot be written down, by what identifies it there."""

    kind: str
    name: Any = None


def unwrapped(value: Any) -> Any:
    return value.__reduce__()[1][0] if isinstance(value, LazyObject) else value


#: Which values a conditional row is about, and whether it depends on the receiver's naming the argument.
CONDITIONS: dict[str, Callable[[Any, bool], bool]] = {
    "": lambda value, named: True,
    "an instance": lambda value, named: isinstance(value, Model),
    "a `QuerySet`, the receiver names it": lambda value, named: isinstance(value, QuerySet) and named,
    "a `QuerySet`, the receiver does not name it": lambda value, named: isinstance(value, QuerySet) and not named,
    "what can travel": lambda value, named: not isinstance(value, Unsendable),
    "what cannot travel": lambda value, named: isinstance(value, Unsendable),
    "a model": lambda value, named: isinstance(value, ModelBase),
    "`NoneType`": lambda value, named: value is type(None),
    "not `None`": lambda value, named: value is not None,
    "`None`": lambda value, named: value is None,
}


def _itself(argument: str, value: Any) -> Any:
    # A copy as of now: Django goes on changing what it has sent.
    return copy.deepcopy(unwrapped(value))


def _row(argument: str, value: Any) -> Any:
    made = copy.deepcopy(unwrapped(value))
    # The row has all fields, also those that the instance had not loaded.
    made.refresh_from_db(fields=made.get_deferred_fields())
    return made


def _request(argument: str, value: Any) -> RequestSnapshot:
    user = getattr(value, "user", None)
    try:
        host = value.get_host()
    except KeyError:  # the bare HttpRequest() with which Django's test client logs in
        host = None
    return RequestSnapshot(
        method=value.method,
        path=value.path,
        query=value.META.get("QUERY_STRING", ""),
        scheme=value.scheme,
        host=host,
        remote_addr=value.META.get("REMOTE_ADDR"),
        headers={name: value.headers[name] for name in table.words("headers") if name in value.headers},
        user=AnonymousUser() if isinstance(user, AnonymousUser) else copy.deepcopy(unwrapped(user)),
    )


def _environ(argument: str, value: Any) -> dict[str, Any]:
    headers = ["HTTP_" + name.upper().replace("-", "_") for name in table.words("headers")]
    return {name: value[name] for name in value if name in (*table.words("environ"), *headers)}


def _scope(argument: str, value: Any) -> dict[str, Any]:
    made = {name: value[name] for name in value if name in table.words("scope")}
    kept = [name.encode() for name in table.words("headers")]
    return made | {"headers": [pair for pair in value["headers"] if pair[0] in kept]}


def _plan(argument: str, value: Any) -> Any:
    return [(MigrationSnapshot(migration.app_label, migration.name), backwards) for migration, backwards in value]


def _not_carried(argument: str, value: Any) -> NotCarried:
    return NotCarried(f"kwargs[{argument!r}]", type_name(value), "")


def _queryset(argument: str, value: Any) -> Local:
    # What has been read once is not read again, and knows its rows when they are gone.
    read = value._result_cache is not None
    return queryset(value, [row.pk for row in value] if read else value.values_list("pk", flat=True))


def queryset(value: QuerySet[Any], pks: Any) -> Local:
    return Local("QuerySet", (value.model._meta.label, value.db, sorted(pks)))


#: What should arrive for a value, made when it is sent.
ARRIVES: dict[str, Callable[[str, Any], Any]] = {
    "itself": _itself,
    "itself, as the row is then": _row,
    "itself, as it was": _itself,
    "its class": lambda argument, value: type(value),
    "a [`RequestSnapshot`](what-travels.md#requests)": _request,
    "a `dict` of [its harmless keys](#what-travels-of-a-request)": lambda argument, value: (
        _environ if argument == "environ" else _scope
    )(argument, value),
    "the worker's `AppConfig` of that label": lambda argument, value: Local("AppConfig", value.label),
    "the worker's `django.apps.apps`": lambda argument, value: Local("Apps"),
    "an `OutputWrapper` around the worker's `sys.stdout`": lambda argument, value: Local("OutputWrapper"),
    "the list, of `(MigrationSnapshot, bool)`": _plan,
    "a `NotCarried` marker": _not_carried,
    "a `QuerySet` by the primary keys": _queryset,
}


def tag(data: Any) -> str:
    """The tag of what is on the wire, ``""`` for plain JSON."""
    if isinstance(data, dict) and len(data) == 1 and next(iter(data)).startswith("$"):
        return str(next(iter(data)))
    return ""


_SPECIAL = {
    "$appconfig",
    "$apps",
    "$class",
    "$model",
    "$notcarried",
    "$queryset",
    "$ref",
    "$same",
    "$snapshot",
    "$output",
}

#: Whether the wire says so.
TRAVELS: dict[str, Callable[[Any], bool]] = {
    "value": lambda data: tag(data) not in _SPECIAL,
    "label": lambda data: tag(data) in {"$model", "$appconfig"},
    "dotted path": lambda data: tag(data) == "$class",
    "reference": lambda data: tag(data) == "$ref",
    "snapshot": lambda data: tag(data) in {"$snapshot", "$same"},
    "primary keys": lambda data: tag(data) == "$queryset",
    "parts of it": lambda data: tag(data) in {"", "$dataclass"},
    "nothing of it": lambda data: tag(data) in {"$apps", "$output", "$notcarried"},
}
