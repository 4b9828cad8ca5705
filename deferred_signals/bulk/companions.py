"""Django's bulk methods, each with a ``post_save`` to the deferred receivers in the same transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from django.db import NotSupportedError, connections, transaction
from django.db.models import AutoField, Manager, Model, QuerySet
from django.db.models.manager import BaseManager
from django.db.models.signals import post_save

from ..references import key_of
from .sending import is_heard, send_for

M = TypeVar("M", bound=Model)

#: Keys that one query names: a SQLite may take no more than 999 values, and a composite key is several.
CHUNK = 300


def bulk_create(manager: Manager[M] | QuerySet[M], objs: Iterable[M], **options: Any) -> list[M]:
    """``manager.bulk_create()``, and ``post_save`` to the deferred receivers for each row, in one transaction.

    Raises ValueError or NotSupportedError, before anything is written, where Django does not tell which rows it made.
    """
    objs = list(objs)
    for option in ("ignore_conflicts", "update_conflicts"):
        if options.get(option):
            raise ValueError(
                f"With {option}=True Django does not tell which rows bulk_create() made, so nobody can be told. In "
                "transaction.atomic(), call the manager's own bulk_create(), find the rows, and send_for() them."
            )
    alias = _write_alias(manager)
    returns_keys = connections[alias].features.can_return_rows_from_bulk_insert
    if not returns_keys and any(obj.pk is None and isinstance(obj._meta.pk, AutoField) for obj in objs):
        raise NotSupportedError(
            f"The database {alias!r} does not return the keys that it makes in a bulk_create(), so nobody can be told "
            "of these rows. Give the instances keys (a UUIDField with a default), or save() each of them."
        )
    with transaction.atomic(using=alias):
        made: list[M] = _on(alias, manager).bulk_create(objs, **options)
        send_for(objs, post_save, created=True, using=alias)
    return made


def bulk_update(manager: Manager[M] | QuerySet[M], objs: Iterable[M], fields: Iterable[str], **options: Any) -> int:
    """``manager.bulk_update()``, and ``post_save`` to the deferred receivers for each row that was there.

    Both in one transaction. Instances that are told of are left as ``save()`` leaves them: of that database, not new.
    """
    objs, fields = list(objs), list(fields)
    alias = _write_alias(manager)
    rows = manager.using(alias)
    heard = any(is_heard(post_save, model) for model in {obj.__class__ for obj in objs})
    with transaction.atomic(using=alias):
        there: set[Any] = set()
        for start in range(0, len(objs) if heard else 0, CHUNK):
            there.update(_lock(rows.filter(pk__in=[obj.pk for obj in objs[start : start + CHUNK]])))
        count: int = _on(alias, manager).bulk_update(objs, fields, **options)
        if heard:
            written = [obj for obj in objs if count == len(objs) or key_of(rows.model, obj.pk) in there]
            for obj in written:
                obj._state.adding, obj._state.db = False, alias  # or it would travel as new, or be read elsewhere
            send_for(written, post_save, using=alias, update_fields=frozenset(fields))
    return count


def update(queryset: Manager[Any] | QuerySet[Any], /, **values: Any) -> int:
    """``queryset.update()``, and ``post_save`` to the deferred receivers for each row that matched.

    Both in one transaction. The rows are locked before, if the database can do that, and read again afterwards. Raises
    ValueError, before anything is written, where the primary keys would change.
    """
    alias = _write_alias(queryset)
    meta = queryset.model._meta
    for name in values:
        field = meta.get_field(name)
        if getattr(field, "primary_key", False) or field in meta.pk_fields:
            raise ValueError(
                f"{name!r} is a primary key: which rows have changed could not be told after the update(). In "
                "transaction.atomic(), call the queryset's own update(), find the rows, and send_for() them."
            )
    rows = queryset.using(alias)
    if not values or not is_heard(post_save, queryset.model):
        return rows.update(**values)
    with transaction.atomic(using=alias):
        keys = _lock(rows)
        # Rows that have come to match since are not part of it. Where no row can be locked, none can have.
        locks = connections[alias].features.has_select_for_update
        count = (rows.filter(pk__in=keys) if locks else rows).update(**values)
        send_for(_read(queryset.model, alias, keys), post_save, using=alias, update_fields=frozenset(values))
    return count


def _write_alias(source: Manager[Any] | QuerySet[Any]) -> str:
    """The database that would be written to: a queryset that locks its rows says that one, any other where it reads.

    Raises TypeError for what is neither a manager nor a queryset.
    """
    if not isinstance(source, BaseManager | QuerySet):
        raise TypeError(f"The first argument is a manager or a queryset, as Model.objects; not {source!r}.")
    return source.select_for_update().db


def _on(alias: str, source: Any) -> Any:
    """The same manager or queryset on that database; a manager stays one, for it may have methods of its own."""
    return source.db_manager(alias) if isinstance(source, BaseManager) else source.using(alias)


def _lock(rows: QuerySet[Any]) -> list[Any]:
    """Lock the rows until the end of the transaction; return their keys, in order."""
    rows = rows.order_by()  # which also refuses a slice, as an update would
    # In a query around it: many a queryset (DISTINCT, GROUP BY, outer joins) cannot be locked itself.
    candidates = rows.model._base_manager.using(rows.db).filter(pk__in=rows.values("pk"))
    keys = list(candidates.select_for_update().order_by("pk").values_list("pk", flat=True))
    # Whoever had a row locked before may have changed it so that it does not match any more.
    still = set(rows.values_list("pk", flat=True))
    return [key for key in keys if key in still]


def _read(model: type[Model], alias: str, keys: list[Any]) -> Iterator[Model]:
    """The rows of these keys, in order, also those that a default manager would hide."""
    for start in range(0, len(keys), CHUNK):
        yield from model._base_manager.using(alias).filter(pk__in=keys[start : start + CHUNK]).order_by("pk")
