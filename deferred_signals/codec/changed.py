"""What a save has changed, as a value that travels; its codec is with those of the fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django.db.models import Model

Changes = dict[str, tuple[Any, Any]]


class FieldChanges(Changes):
    """``{attname: (old, new)}`` of an instance; arrives as a plain dict."""

    def __init__(self, instance: Model, changes: Mapping[str, tuple[Any, Any]]) -> None:
        super().__init__(changes)
        self.instance = instance
