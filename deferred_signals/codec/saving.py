"""A snapshot that is saved would bring a deleted row back, or overwrite newer data: that is refused, and said.

The mark of a snapshot stands in the place of Django's cache of prefetched rows. So it goes where the instance goes,
through ``copy`` and ``pickle`` too, and ``refresh_from_db()``, which begins that cache anew, takes it away: the
instance is the row again. A snapshot of an unsaved instance has no mark, for it never was a row.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Self

from django.db.models import Model
from django.db.models.signals import pre_save

from ..exceptions import SnapshotSaved
from ..registry import holds

_PLACE = "_prefetched_objects_cache"


class Mark(dict[str, Any]):
    """The cache of prefetched rows of a snapshot."""

    def __new__(cls) -> Self:
        # Here, for where a snapshot is unpickled none may have been decoded.
        if not holds(pre_save, refuse):
            pre_save.connect(refuse, weak=False, dispatch_uid="deferred_signals.snapshots")
        return super().__new__(cls)


def mark(instance: Model) -> None:
    """Say that the instance is a snapshot of a row."""
    vars(instance)[_PLACE] = Mark()


def refuse(
    sender: type[Model],
    instance: Model,
    raw: bool = False,
    using: str | None = None,
    update_fields: Collection[str] | None = None,
    **kwargs: Any,
) -> None:
    """An inline receiver of pre_save. Raises SnapshotSaved.

    What names its fields writes no others, and ``raw`` saves mean the instance as it is.
    """
    if type(vars(instance).get(_PLACE)) is not Mark or raw or _are_named(instance, using, update_fields):
        return
    if instance._state.adding:
        return  # whoever says that wants a new row
    model = type(instance)
    raise SnapshotSaved(
        f"This {model._meta.label} is a snapshot, the row as it was when the signal was sent: to save it would "
        "overwrite newer data, or bring a deleted row back. Read the row again, by "
        f"{model.__name__}.objects.get(pk=...) or refresh_from_db(), and save that. Or write only what you name, with "
        "save(update_fields=[...]). To bring a deleted row back, make an instance of your own and save it."
    )


def _are_named(instance: Model, using: str | None, update_fields: Collection[str] | None) -> bool:
    """Whether the save named its fields.

    Where some are deferred, Django itself names all the others; who names just these cannot be told from that.
    """
    if update_fields is None:
        return False
    deferred = instance.get_deferred_fields()
    keys = {field.attname for field in instance._meta.pk_fields}
    loaded = {field.attname for field in instance._meta.concrete_fields} - deferred - keys
    return not deferred or using != instance._state.db or set(update_fields) != loaded
