"""What travels by name and is found again: importable objects by dotted path, model rows by reference."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from django.apps import apps
from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.db import connections, router

from .exceptions import DecodeError, InstanceMissing

if TYPE_CHECKING:
    from django.db.models import Model


def path_of(thing: Any) -> str | None:
    """The dotted path that an importable object gives for itself; None for what has none (locals, lambdas)."""
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or "<" in name:
        return None
    return f"{module}.{name}"


def look_up(path: str) -> Any:
    """Find a dotted path among the modules that are imported already; None when it is not there.

    Nothing is imported and no code runs: no module ``__getattr__``, no descriptor, no metaclass.
    """
    parts = path.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module = sys.modules.get(".".join(parts[:length]))
        if isinstance(module, ModuleType):
            found: Any = module
            for name in parts[length:]:
                found = _member(found, name)
            return found
    return None


def _member(holder: Any, name: str) -> Any:
    """One step of ``look_up``: an attribute of a module or a class, read without running anything."""
    if isinstance(holder, ModuleType):
        return vars(holder).get(name)
    if not isinstance(holder, type):
        return None
    for base in type.mro(holder):
        if name in vars(base):
            found = vars(base)[name]
            return found.__func__ if isinstance(found, staticmethod) else found
    return None


def is_importable(thing: Any) -> bool:
    """Whether the object's own dotted path leads back to it."""
    path = path_of(thing)
    return path is not None and look_up(path) is thing


def is_model(thing: Any) -> bool:
    """Whether it is a model class. Does not import Django's models: where they are not, nothing is a model."""
    base = sys.modules.get("django.db.models.base")
    return base is not None and isinstance(thing, base.ModelBase)


def is_instance(thing: Any) -> bool:
    """Whether it is a model instance, also one wrapped in a SimpleLazyObject."""
    base = sys.modules.get("django.db.models.base")
    return base is not None and isinstance(thing, base.Model)


def label_of(model: type[Model]) -> str | None:
    """``"app.model"``, or None for a class that the app registry does not have (historical models)."""
    meta = model._meta
    found = apps.all_models.get(meta.app_label, {}).get(meta.model_name or "")
    return meta.label_lower if found is model else None


def model_of(label: Any) -> type[Model]:
    """The model of a label. Raises DecodeError."""
    try:
        return apps.get_model(label)
    except (LookupError, ValueError, AttributeError, TypeError):
        raise DecodeError("A model that the payload names is not installed in this process.") from None


def write_alias(instance: Model) -> str:
    """The alias to which the instance would be written; for one read from a replica that is the primary's."""
    return router.db_for_write(type(instance), instance=instance)


def known_alias(alias: Any) -> str:
    """The alias, if this process has it. Raises DecodeError."""
    if not isinstance(alias, str) or alias not in connections:
        raise DecodeError("A database alias that the payload names is not in this process's DATABASES.")
    return alias


class Reference(NamedTuple):
    """A row: ``app.model``, primary key and the alias it is read from."""

    label: str
    pk: Any
    alias: str

    def fetch(self) -> Model:
        """Read the row through ``_base_manager``, so that no default manager hides it.

        Raises InstanceMissing when the row is gone (and only then), DecodeError when the reference makes no sense
        here; what the database raises passes through: unavailable is not gone.
        """
        model, alias = model_of(self.label), known_alias(self.alias)
        pk = self.pk
        try:
            if not isinstance(pk, tuple):
                pk = model._meta.pk.to_python(pk)
            return model._base_manager.using(alias).get(pk=pk)
        except ObjectDoesNotExist:
            raise InstanceMissing(f"A row of {self.label} that the delivery refers to is gone.") from None
        except (ValidationError, ValueError, TypeError):
            raise DecodeError(f"The payload's primary key is none for {self.label}.") from None
