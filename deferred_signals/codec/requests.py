"""What of an HTTP request travels: a ``RequestSnapshot``; and ``AnonymousUser``, who often comes with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import DisallowedHost
from django.http import HttpRequest

from .base import Decoder, Encoder, add

#: The headers that travel. Never cookies or authorization; nothing here is a credential.
HEADERS = ("accept-language", "content-type", "referer", "user-agent", "x-forwarded-for", "x-request-id")


@dataclass(frozen=True)
class RequestSnapshot:
    """Stands on the worker for an ``HttpRequest``. Cookies, authorization, body and session have not travelled."""

    method: str | None
    path: str
    query: str
    scheme: str | None
    host: str | None
    remote_addr: str | None
    headers: dict[str, str] = field(default_factory=dict)
    user: Any = None


def snapshot(request: HttpRequest) -> RequestSnapshot:
    """The part of a request that travels; ``user`` only where a middleware has set one."""
    try:
        host: str | None = request.get_host()
    except (DisallowedHost, KeyError):
        # KeyError: a bare HttpRequest() without a SERVER_NAME, which is what Django's test client logs in with.
        host = None
    meta = request.META
    return RequestSnapshot(
        method=request.method,
        path=request.path,
        query=meta.get("QUERY_STRING", ""),
        scheme=request.scheme,
        host=host,
        remote_addr=meta.get("REMOTE_ADDR"),
        headers={name: value for name in HEADERS if (value := request.headers.get(name)) is not None},
        user=getattr(request, "user", None),
    )


def _request(encoder: Encoder, value: HttpRequest) -> Any:
    return encoder.encode(snapshot(value))


def _decode_anonymous(decoder: Decoder, data: Any) -> Any:
    # Imported when the value comes: not every project has django.contrib.auth.
    from django.contrib.auth.models import AnonymousUser  # noqa: PLC0415

    return AnonymousUser()


add(HttpRequest, _request, subclasses=True)
add(
    "django.contrib.auth.models.AnonymousUser",
    lambda encoder, value: {"$anonymous": None},
    tag="$anonymous",
    decode=_decode_anonymous,
)
