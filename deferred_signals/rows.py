"""Reading a row by its key, in a third of the time that ``QuerySet.get`` takes.

Django makes the query anew and writes its SQL each time, which takes longer than all else of a delivery. For most
models the text is the same each time. So it is made once, and is used only where it is, word for word, what Django
itself writes: one table, each column as it is, and nothing else to ask but the key. ``from_db`` makes the instance, as
ever; where values are converted on their way, ``Manager.raw`` does it all.
"""

from __future__ import annotations

import functools
import uuid
from contextlib import suppress
from typing import Any, NamedTuple

from django.core.exceptions import FieldDoesNotExist
from django.core.signals import setting_changed
from django.db import DataError, connections, models

from .exceptions import DecodeError, InstanceMissing
from .references import Reference, key_of, known_alias, model_of

#: The keys of which it is known how a database is told them, by the type of their field: a value of the type that
#: Python has for them, which stands for any other one.
_KEYS: dict[type, Any] = {models.AutoField: 1, models.BigAutoField: 1, models.UUIDField: uuid.UUID(int=1)}
#: The fields to which every int is a key as it is.
_NUMBERS = (models.AutoField, models.BigAutoField)
#: Rows with one key, as in a view, of which none is chosen: Django says what is wrong with that.
_SEVERAL = 2
#: What is larger, or less than none, is no key, and Django does not ask the database for it.
_MOST = 2**31 - 1


def fetch(reference: Reference) -> models.Model:
    """Read the row of a reference through ``_base_manager``, so that no default manager hides it.

    Raises InstanceMissing when the row is gone (and only then), DecodeError when the reference makes no sense here;
    what the database raises passes through: unavailable is not gone.
    """
    model: Any = model_of(reference.label)
    alias, pk = known_alias(reference.alias), key_in(model, reference.pk)
    try:
        return read(model, pk, alias)  # type: ignore[no-any-return]
    except model.DoesNotExist:
        raise InstanceMissing(f"A row of {reference.label} that the delivery refers to is gone.") from None
    except DataError:
        raise DecodeError(f"The key of a {reference.label} is none that its database could hold.") from None


def key_in(model: Any, pk: Any) -> Any:
    """As ``key_of``; in a tenth of the time what most keys are."""
    return pk if type(pk) is int and type(model._meta.pk) in _NUMBERS else key_of(model, pk)


def read(model: Any, pk: Any, alias: str) -> Any:
    """The row with this primary key. Raises ``model.DoesNotExist``, and as ``QuerySet.get`` does."""
    manager, field = model._base_manager, model._meta.pk
    # Another manager may ask for something else each time.
    if type(manager) is models.Manager and _is_key(field, pk):
        connection = connections[alias]
        statement = _statement_of(model, alias, connection.vendor)
        if statement is not None:
            key = field.get_db_prep_value(pk, connection)
            if statement.names is not None:
                with connection.cursor() as cursor:
                    cursor.execute(statement.text, (key,))
                    found = cursor.fetchmany(_SEVERAL)
                if not found:
                    raise model.DoesNotExist
                if len(found) < _SEVERAL:
                    return model.from_db(alias, [*statement.names], found[0])
            else:
                with suppress(FieldDoesNotExist):
                    found = list(manager.raw(statement.text, (key,), using=alias))
                    if not found:
                        raise model.DoesNotExist
                    # raw() goes by the names that the table has for its columns. SQLite and MySQL find NAME under name.
                    if len(found) < _SEVERAL and not found[0].get_deferred_fields():
                        return found[0]
    return manager.using(alias).get(pk=pk)


def _is_key(field: Any, pk: Any) -> bool:
    probe = _KEYS.get(type(field))
    return probe is not None and type(pk) is type(probe) and (type(pk) is not int or 0 < pk <= _MOST)


class _Statement(NamedTuple):
    """The SQL that reads a row, the fields that it reads, and their names; None for these if some are converted."""

    text: str
    fields: Any
    names: list[str] | None


def _statement_of(model: Any, alias: str, vendor: str) -> _Statement | None:
    """How a row is read, None where Django writes another SQL."""
    meta = model._meta
    found = _statement(model, alias, vendor, meta.db_table)
    if found is not None and found.fields is not meta.concrete_fields:
        # Django makes the list anew when the model has got a field.
        _statement.cache_clear()
        return _statement(model, alias, vendor, meta.db_table)
    return found


# The vendor of an alias changes in tests, and the table of a model where it is a tenant's.
@functools.lru_cache(maxsize=1000)
def _statement(model: Any, alias: str, vendor: str, name: str) -> _Statement | None:
    connection, key = connections[alias], model._meta.pk
    quoted = connection.ops.quote_name
    table = quoted(name)
    fields = model._meta.concrete_fields
    columns = ", ".join(f"{table}.{quoted(field.column)}" for field in fields)
    text = f"SELECT {columns} FROM {table} WHERE {table}.{quoted(key.column)} = %s"  # noqa: S608 - names of the model
    probe = _KEYS[type(key)]
    # Neither the compiler nor converters are documented; ``str(query)`` is, but it writes for the default database
    # only. Were they gone, test_rows would fail.
    compiler = model._base_manager.using(alias).filter(pk=probe).query.get_compiler(using=alias)
    if compiler.as_sql() != (text, (key.get_db_prep_value(probe, connection),)):
        return None
    is_converted = compiler.get_converters([field.get_col(name) for field in fields])
    return _Statement(text, fields, None if is_converted else [field.attname for field in fields])


def _forget(**kwargs: Any) -> None:
    """Whether a value is converted depends on settings, too: on MySQL, times do on USE_TZ."""
    _statement.cache_clear()


setting_changed.connect(_forget)
