"""What a save changes: the row is read before it is written, and no model is touched."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.dispatch import Signal

from .codec.changed import Changes, FieldChanges
from .options import Options
from .references import has_key, label_of
from .registry import holds
from .suppression import suppressed

if TYPE_CHECKING:
    from django.db.models import Field, Model

Values = dict[str, Any]


class Save:
    """One save: the row as it was (None for a new one), as it became if that is known, and who has asked about it."""

    __slots__ = ("asked", "new", "row")

    def __init__(self, row: Values | None) -> None:
        self.row = row
        self.new: Values | None = None
        self.asked: set[int] = set()


class Saves:
    """The last saves of an instance, newest last: a receiver of one may make another, and is told of that first."""

    __slots__ = ("instance", "stack")

    def __init__(self, instance: weakref.ref[Model]) -> None:
        self.instance = instance
        self.stack: deque[Save] = deque(maxlen=8)


#: The stand-ins that want to know changes; whether they are still connected is asked of their signal.
_interested: weakref.WeakSet[Any] = weakref.WeakSet()

#: By the id of each instance that is still there: not every model can be hashed before it has a key.
_saves: dict[int, Saves] = {}


def watch(stand_in: Any, pre_save: Signal) -> None:
    """From now on, read the row before each save of which the stand-in will hear."""
    _interested.add(stand_in)
    pre_save.connect(_before, weak=False, dispatch_uid="deferred_signals.changes")


def _is_wanted(sender: type[Model]) -> bool:
    label = label_of(sender)
    if label is None:
        return False  # a migration's historical model, of which nothing is delivered
    for one in list(_interested):
        model = one.sender
        meant = model is None or model is sender or (isinstance(model, str) and model.lower() == label)
        if meant and holds(one.signal, one):
            return True
    return False


def _before(
    sender: type[Model], instance: Model, raw: bool, using: str, update_fields: Any = None, **kwargs: Any
) -> None:
    """An inline receiver of pre_save."""
    if raw or suppressed() or not _is_wanted(sender):
        return
    names = {
        field.attname
        for field in _stored(instance)
        if update_fields is None or field.name in update_fields or field.attname in update_fields
    }
    key = id(instance)
    saves = _saves.get(key)
    if saves is None:
        saves = _saves[key] = Saves(weakref.ref(instance, lambda _: _saves.pop(key, None)))
    # If a receiver of the last save makes this one, the row is now what the last one made of it.
    last = saves.stack[-1] if saves.stack else None
    asked = names if last is None or last.row is None or last.new is not None else names | last.row.keys()
    row = _read(instance, using, asked) if asked and not _is_new(instance) else None
    if row is not None and asked is not names:
        last.new = {name: row[name] for name in last.row}  # type: ignore[union-attr]  # there is one
    saves.stack.append(Save(None if row is None else {name: row[name] for name in names}))


def _is_new(instance: Model) -> bool:
    """Whether the save will insert a row, as far as can be known: of a key by default, Django itself thinks so."""
    return not has_key(instance.pk) or (instance._state.adding and instance._meta.pk.has_default())


def _stored(instance: Model) -> list[Field[Any, Any]]:
    """The fields whose values the instance has, and a save writes."""
    fields = instance._meta.concrete_fields
    return [
        field for field in fields if field.attname in instance.__dict__ and not (field.primary_key or field.generated)
    ]


def _read(instance: Model, using: str, names: Iterable[str]) -> Values | None:
    rows = type(instance)._base_manager.using(using).filter(pk=instance.pk)
    return rows.values(*names).first()


def of_save(instance: Any, using: str | None, stand_in: Any) -> Changes:
    """``{attname: (old, new)}`` of what the save has changed that is telling the stand-in; empty for a new row.

    Empty too where no save is: a post_save that somebody sends by hand.
    """
    saves = _saves.get(id(instance))
    for save in reversed(saves.stack) if saves is not None else ():
        if id(stand_in) not in save.asked:
            save.asked.add(id(stand_in))
            old = save.row or {}
            if save.new is None:
                save.new = _became(instance, using or instance._state.db, old)
            return {name: (value, save.new[name]) for name, value in old.items() if value != save.new[name]}
    return {}


def _became(instance: Model, using: str, old: Values) -> Values:
    """The values after the save. Where the instance says another one, the row is asked for what became of it."""
    fields = {field.attname: field for field in _stored(instance)}
    new = {name: _new(fields[name], instance.__dict__[name]) if name in fields else _UNKNOWN for name in old}
    unlike = [name for name, value in old.items() if new[name] != value]
    row = _read(instance, using, unlike) if unlike else {}
    # A row that a receiver has deleted since leaves what the instance says.
    return {**old, **({name: new[name] for name in unlike if new[name] is not _UNKNOWN} if row is None else row)}


_UNKNOWN = object()


def carried(changes: Changes, instance: Any, options: Options) -> Changes:
    """Those of the changes that travel: ``fields`` and ``exclude`` are for them as for a snapshot."""
    if not changes:
        return changes
    names = {field.attname: {field.name, field.attname} for field in instance._meta.concrete_fields}
    found = {
        name: change
        for name, change in changes.items()
        if (options.fields is None or names[name] & options.fields) and not names[name] & options.exclude
    }
    return FieldChanges(instance, found)


def _new(field: Field[Any, Any], value: Any) -> Any:
    """A value as the row will say it: the instance may hold ``"9.90"`` for a Decimal, or a file for its name."""
    if hasattr(value, "resolve_expression"):
        return _UNKNOWN
    if hasattr(value, "_committed"):
        return value.name or ""
    try:
        return field.to_python(value)
    except (ValidationError, ValueError, TypeError):
        return value
