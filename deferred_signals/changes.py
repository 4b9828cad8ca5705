"""What a save changes: the row is read before it is written, and no model is touched."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.dispatch import Signal

from .references import label_of
from .registry import holds

if TYPE_CHECKING:
    from django.db.models import Field, Model

Values = dict[str, Any]
Changes = dict[str, tuple[Any, Any]]


class Save:
    """One save: the instance, the row as it was (None for a new one), and who has asked what it changed."""

    __slots__ = ("asked", "instance", "row")

    def __init__(self, instance: weakref.ref[Model], row: Values | None) -> None:
        self.instance = instance
        self.row = row
        self.asked: set[int] = set()


#: The stand-ins that want to know changes; whether they are still connected is asked of their signal.
_interested: weakref.WeakSet[Any] = weakref.WeakSet()

#: The last save of each instance that is still there, by its id: not every model can be hashed before it has a key.
_saves: dict[int, Save] = {}


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


def _before(sender: type[Model], instance: Model, using: str, update_fields: Any = None, **kwargs: Any) -> None:
    """An inline receiver of pre_save."""
    if not _is_wanted(sender):
        return
    names = [
        field.attname
        for field in _stored(instance)
        if update_fields is None or field.name in update_fields or field.attname in update_fields
    ]
    key = id(instance)
    row = _read(instance, using, names) if names and instance.pk is not None else None
    _saves[key] = Save(weakref.ref(instance, lambda _: _saves.pop(key, None)), row)


def _stored(instance: Model) -> list[Field[Any, Any]]:
    """The fields whose values the instance has, and a save writes."""
    fields = instance._meta.concrete_fields
    return [
        field for field in fields if field.attname in instance.__dict__ and not (field.primary_key or field.generated)
    ]


def _read(instance: Model, using: str, names: list[str]) -> Values | None:
    rows = type(instance)._base_manager.using(using).filter(pk=instance.pk)
    return rows.values(*names).first()


def of_save(instance: Model, using: str, stand_in: Any) -> Changes:
    """``{attname: (old, new)}`` of what the save has changed that is telling the stand-in; empty for a new row.

    Empty too where no save is: a post_save that somebody sends by hand.
    """
    save = _saves.get(id(instance))
    if save is None or save.row is None or id(stand_in) in save.asked:
        return {}
    save.asked.add(id(stand_in))
    new = {field.attname: _new(field, instance.__dict__[field.attname]) for field in _stored(instance)}
    # An expression stays in the instance; what the database made of it is in the row.
    made_there = [name for name in save.row if hasattr(new[name], "resolve_expression")]
    if made_there:
        new.update(_read(instance, using, made_there) or {})
    return {name: (old, new[name]) for name, old in save.row.items() if old != new[name]}


def _new(field: Field[Any, Any], value: Any) -> Any:
    """A value as the row will say it: the instance may hold ``"9.90"`` for a Decimal, or a file for its name."""
    if hasattr(value, "resolve_expression"):
        return value
    if hasattr(value, "_committed"):
        return value.name or ""
    try:
        return field.to_python(value)
    except (ValidationError, ValueError, TypeError):
        return value
