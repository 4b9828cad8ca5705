"""What of an HTTP request travels: a ``RequestSnapshot``; and ``AnonymousUser``, who often comes with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from django.utils.functional import LazyObject

from ..exceptions import EncodeError
from .base import Decoder, Encoder, add, type_name
from .named import found, importable
from .stand_ins import NotCarried
from .walk import told

if TYPE_CHECKING:
    from django.http import HttpRequest

#: The headers that travel. Never cookies or authorization; nothing here is a credential.
HEADERS = ("accept-language", "content-type", "referer", "user-agent", "x-forwarded-for", "x-request-id")

#: The header and its key in a WSGI environ and in ``request.META``.
_META = {
    name: "CONTENT_TYPE" if name == "content-type" else f"HTTP_{name.upper().replace('-', '_')}" for name in HEADERS
}
_ENVIRON = (
    "REQUEST_METHOD",
    "SCRIPT_NAME",
    "PATH_INFO",
    "QUERY_STRING",
    "CONTENT_LENGTH",
    "SERVER_NAME",
    "SERVER_PORT",
    "SERVER_PROTOCOL",
    "REMOTE_ADDR",
    "wsgi.url_scheme",
    *_META.values(),
)
_SCOPE = (
    "type",
    "http_version",
    "method",
    "scheme",
    "path",
    "raw_path",
    "root_path",
    "query_string",
    "client",
    "server",
)
_SCOPE_HEADERS = frozenset(name.encode() for name in HEADERS)


@dataclass(frozen=True)
class RequestSnapshot:
    """Stands on the worker for an ``HttpRequest``. Cookies, authorization, body and session have not travelled.

    A lone surrogate, which UTF-8 cannot say, stands in a text as its escape, ``\\udcff``.
    """

    method: str | None
    path: str
    query: str
    scheme: str | None
    host: str | None
    remote_addr: str | None
    headers: dict[str, str] = field(default_factory=dict)
    user: Any = None


def snapshot(request: HttpRequest, *, ask: bool = True) -> RequestSnapshot:
    """The part of a request that travels; ``user`` only where a middleware has set one.

    With ``ask=False`` only one who is known already: to ask takes the session and the database, and counts as an access
    to the session, for which Django varies the response on the cookie.
    """
    meta = request.META
    return RequestSnapshot(
        method=_text(request.method),
        path=_text(request.path),
        query=_text(meta.get("QUERY_STRING", "")),
        scheme=_text(request.scheme),
        host=_text(_host(request)),
        remote_addr=_text(meta.get("REMOTE_ADDR")),
        headers={name: _text(meta[key]) for name, key in _META.items() if meta.get(key) is not None},
        user=_user(request)
        if ask or _is_known(request)
        else NotCarried("request.user", "SimpleLazyObject", _NOT_ASKED),
    )


_NOT_ASKED = "nobody had asked yet who it is. Name request in the receiver, and the send asks."


def _is_known(request: HttpRequest) -> bool:
    held = vars(request)
    # Where the middleware's lazy user keeps what it has found: nothing public tells whether it has.
    return "_cached_user" in held or not isinstance(held.get("user"), LazyObject)


def _user(request: HttpRequest) -> Any:
    try:
        return told(request, lambda it: getattr(it, "user", None), "its user cannot be had: that raised {}.")
    except EncodeError as error:
        return _not_known(error.under(".user"))


def _not_known(error: EncodeError) -> NotCarried:
    """The marker for a user: it may take a session and a database to say who it is, and the send may be about these
    being away.
    """
    return NotCarried(f"request{error.path}", error.type_name, error.reason)


def environ_snapshot(environ: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a WSGI environ that travels, under the keys that it has there."""
    return {key: _text(environ[key]) for key in _ENVIRON if key in environ}


def scope_snapshot(scope: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an ASGI scope that travels, under the keys that it has there."""
    made = {key: _text(scope[key]) for key in _SCOPE if key in scope}
    if "headers" in scope:
        made["headers"] = [pair for pair in scope["headers"] if pair[0].lower() in _SCOPE_HEADERS]
    return made


def _host(request: HttpRequest) -> str | None:
    try:
        return request.get_host()
    except Exception:  # noqa: BLE001 - one that is not allowed, or a bare HttpRequest(), as Django's test client logs in with
        return None


def _text(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _request(encoder: Encoder, value: HttpRequest) -> Any:
    made = snapshot(value, ask=encoder.asked)
    position = encoder.position()
    try:
        return encoder.encode(made)
    except EncodeError as error:
        if not error.path.startswith(".user"):
            raise
        encoder.back_to(position)
        return encoder.encode(replace(made, user=_not_known(error)))


def _rest_framework_request(encoder: Encoder, value: Any) -> Any:
    # Of the request that it wraps, whose user is the one that was authenticated. To ask for its own user could
    # authenticate, here in the send, and swallow the refusal that the view is to answer with.
    return encoder.encode(value._request)  # noqa: SLF001


def _anonymous(encoder: Encoder, value: Any) -> Any:
    kind: Any = type(value)
    if (kind.__module__, kind.__qualname__) == ("django.contrib.auth.models", "AnonymousUser"):
        return {"$anonymous": None}
    if kind.__new__ is not object.__new__ or getattr(value, "__dict__", None):
        raise EncodeError("it is an AnonymousUser that holds something. Use register_codec().", type_name(value))
    return {"$anonymous": importable(kind)}


def _decode_anonymous(decoder: Decoder, data: Any) -> Any:
    # Imported when the value comes: not every project has django.contrib.auth.
    from django.contrib.auth.models import AnonymousUser  # noqa: PLC0415

    kind: Any = AnonymousUser if data is None else found(data, type)
    if not issubclass(kind, AnonymousUser) or kind.__new__ is not object.__new__:
        raise ValueError("not an anonymous user")
    return object.__new__(kind)


# By its path: connecting a receiver must not import all of django.http.
add("django.http.request.HttpRequest", _request)
add("rest_framework.request.Request", _rest_framework_request)
add("django.contrib.auth.models.AnonymousUser", _anonymous, tag="$anonymous", decode=_decode_anonymous)
