"""What travels by name and is found again: importable objects by dotted path, model rows by reference."""

from __future__ import annotations

import sys
from decimal import Decimal
from types import ModuleType, NoneType
from typing import TYPE_CHECKING, Any, NamedTuple

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db import DEFAULT_DB_ALIAS, connections, router

from .exceptions import DecodeError, NotCarriedError, UnknownName

if TYPE_CHECKING:
    from django.db.models import Model


#: Characters of the longest dotted path that is looked up.
_LONGEST = 1000


def path_of(thing: Any) -> str | None:
    """The dotted path that an importable object gives for itself; None for what has none (locals, lambdas)."""
    if thing is NoneType:
        # The sender of user_logged_out for nobody. Its own word, builtins.NoneType, leads nowhere.
        return "types.NoneType"
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or "<" in name:
        return None
    return f"{module}.{name}"


def type_name(value: Any) -> str:
    """The dotted name of a value's type, for error messages."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def look_up(path: str) -> Any:
    """Find a dotted path among the modules that are imported already; None when it is not there.

    Nothing is imported and no code runs: no module ``__getattr__``, no descriptor, no metaclass. What a module has
    imported from another one is found in it, but the path does not lead through the other module.
    """
    if len(path) > _LONGEST:
        return None
    parts = path.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module = sys.modules.get(".".join(parts[:length]))
        if issubclass(type(module), ModuleType):
            # object's own way to the namespace: a lazy module would load itself when asked.
            found = object.__getattribute__(module, "__dict__").get(parts[length])
            for name in parts[length + 1 :]:
                found = _member(found, name)
            return found
    return None


#: The namespace and the bases of a class, read without asking its metaclass.
_namespace = type.__dict__["__dict__"].__get__
_bases = type.__dict__["__mro__"].__get__


def _member(holder: Any, name: str) -> Any:
    """One step of ``look_up``: an attribute of a class, read without running anything."""
    for base in _bases(holder) if issubclass(type(holder), type) else ():
        if name in _namespace(base):
            found = _namespace(base)[name]
            return found.__func__ if type(found) is staticmethod else found
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
    try:
        return base is not None and isinstance(thing, base.Model)
    except Exception:  # noqa: BLE001 - a lazy object that cannot be evaluated; the codec says so where it matters
        return False


def has_key(pk: Any) -> bool:
    """Whether a primary key is there, and not still to be made by the database."""
    parts = pk if isinstance(pk, tuple) else (pk,)
    return not any(part is None or hasattr(part, "resolve_expression") for part in parts)


def is_same_instance(one: Any, other: Any) -> bool:
    """Whether both are instances of one row, whatever ``__eq__`` their class has."""
    if not (is_instance(one) and is_instance(other)):
        return False
    if one._meta.concrete_model is not other._meta.concrete_model:
        return False
    return one is other or (has_key(one.pk) and bool(one.pk == other.pk))


def label_of(model: type[Model]) -> str | None:
    """``"app.model"``, or None for a class that the app registry does not have (historical models)."""
    meta = model._meta
    app_label, name = meta.app_label, meta.model_name
    models = apps.all_models.get(app_label)
    # Not meta.label_lower, which is made each time it is asked for, and more slowly: every send comes by here.
    return f"{app_label}.{name}" if models is not None and models.get(name or "") is model else None


def model_by_label(label: str) -> type[Model] | None:
    """The model of an ``"app.Model"`` that is loaded already; Django may still wait for others."""
    app_label, _, name = label.partition(".")
    return apps.all_models.get(app_label, {}).get(name.lower())


def model_of(label: Any) -> type[Model]:
    """The model of a label. Raises DecodeError."""
    if apps.models_ready and type(label) is str and (found := model_by_label(label)) is not None:
        return found  # in a third of the time
    try:
        return apps.get_model(label)
    except (LookupError, ValueError, AttributeError, TypeError):
        raise UnknownName("A model that the payload names is not installed in this process.") from None


def write_alias(instance: Model) -> str:
    """The alias to which the instance would be written; for one read from a replica that is the primary's."""
    if router.routers:
        # Not type(), for it may be a lazy object, as request.user is.
        return router.db_for_write(instance.__class__, instance=instance)
    # What that would say, at a fifth of the cost: every send comes by here.
    return instance._state.db or DEFAULT_DB_ALIAS


def known_alias(alias: Any) -> str:
    """The alias, if this process has it. Raises DecodeError."""
    if not isinstance(alias, str) or alias not in connections:
        raise UnknownName("A database alias that the payload names is not in this process's DATABASES.")
    return alias


def key_of(model: type[Model], pk: Any) -> Any:
    """A primary key from the wire as the model's field or fields read it. Raises DecodeError."""
    fields = model._meta.pk_fields
    composite = len(fields) > 1
    try:
        given = [*pk] if composite else [pk]
        if any(isinstance(part, Decimal) and abs(part.adjusted()) > _DIGITS for part in given):
            raise ValueError("it would be an endless int")
        parts = [field.to_python(value) for field, value in zip(fields, given, strict=True)]
    except (ValidationError, ValueError, TypeError, ArithmeticError, AttributeError, NotCarriedError):
        # Not chained: the field's own error shows the value.
        raise DecodeError(f"The payload's primary key is none for {model._meta.label_lower}.") from None
    return tuple(parts) if composite else parts[0]


#: Of the largest Decimal that is read as a key: as an int, 1e4000000 would take minutes.
_DIGITS = 1000


class Reference(NamedTuple):
    """A row: ``app.model``, primary key and the alias it is read from; see ``rows.fetch``."""

    label: str
    pk: Any
    alias: str
