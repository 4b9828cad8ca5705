"""What a value is, as JSON, so that two processes' values can be compared: its type and what is in it."""

from typing import Any

from allauth.account.models import EmailConfirmationHMAC
from django.contrib.auth.models import AnonymousUser
from django.core.files.base import File
from django.db.models import Field, Model
from django.http import HttpRequest
from django.utils.functional import LazyObject, Promise
from rest_framework.request import Request

from deferred_signals import NotCarried
from deferred_signals.codec import CarriedError
from deferred_signals.codec.requests import RequestSnapshot

HEADERS = ("accept-language", "content-type", "referer", "user-agent", "x-forwarded-for", "x-request-id")


def described(value: Any, fields: bool) -> Any:
    """Of model instances the primary key, with ``fields`` all that they hold."""
    kind = _path(type(value))
    if isinstance(value, NotCarried):
        return [kind, repr(value)]
    if isinstance(value, Model):
        return [kind, _fields(value) if fields else repr(value.pk)]
    if isinstance(value, File):
        return [kind, _file(value)]
    if isinstance(value, Field):
        return [kind, str(value)]
    if isinstance(value, RequestSnapshot):
        return [kind, {name: described(part, fields) for name, part in vars(value).items()}]
    if isinstance(value, CarriedError):
        return [kind, [value.type_name, value.text]]
    if isinstance(value, list | tuple):
        return [kind, [described(item, fields) for item in value]]
    if isinstance(value, dict):
        return [kind, [[described(key, fields), described(item, fields)] for key, item in value.items()]]
    if isinstance(value, type) or hasattr(value, "__qualname__"):
        return [kind, _path(value)]
    if isinstance(value, EmailConfirmationHMAC):
        return [kind, described(value.email_address, fields)]
    return [kind, None if isinstance(value, AnonymousUser) else repr(value)]


def to_be(value: Any, fields: bool) -> Any:
    """The description of what must arrive: the value itself, or what the documentation says stands for it."""
    if isinstance(value, LazyObject | Promise):
        # What it wraps, by Django's own way to copy: a class says nothing of it.
        return to_be(value.__reduce__()[1][0] if isinstance(value, LazyObject) else str(value), fields)
    if isinstance(value, Request):
        return to_be(value._request, fields)
    if isinstance(value, HttpRequest):
        return [_path(RequestSnapshot), _request(value, fields)]
    if isinstance(value, BaseException):
        return [_path(CarriedError), [_path(type(value)).removeprefix("builtins."), str(value)]]
    if isinstance(value, list | tuple):
        return [_path(type(value)), [to_be(item, fields) for item in value]]
    if isinstance(value, dict):
        return [_path(type(value)), [[to_be(key, fields), to_be(item, fields)] for key, item in value.items()]]
    return described(value, fields)


def sender_to_be(sender: Any, fields: bool) -> Any:
    """A sender that cannot travel arrives as its class: the views, and the file that a thumbnail is."""
    if type(sender).__name__ in {"TokenView", "ThumbnailFile"}:
        sender = type(sender)
    return to_be(sender, fields)


def _request(request: HttpRequest, fields: bool) -> dict[str, Any]:
    meta = request.META
    return {
        "method": described(request.method, fields),
        "path": described(request.path, fields),
        "query": described(meta["QUERY_STRING"], fields),
        "scheme": described("http", fields),
        "host": described("testserver", fields),
        "remote_addr": described("127.0.0.1", fields),
        "headers": described({name: request.headers[name] for name in HEADERS if name in request.headers}, fields),
        "user": to_be(request.user, fields),
    }


def _fields(instance: Model) -> dict[str, Any]:
    values = {field.attname: getattr(instance, field.attname) for field in instance._meta.concrete_fields}
    # A file by its name, as its row has it: simple-history puts the file itself into the text field of a record.
    return {name: described(str(value) if isinstance(value, File) else value, True) for name, value in values.items()}


def _file(file: File) -> list[Any]:
    instance = getattr(file, "instance", None)
    return [file.name, instance and [_path(type(instance)), repr(instance.pk)]]


def _path(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"
