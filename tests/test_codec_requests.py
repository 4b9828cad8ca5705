"""Requests arrive as far as they may, whatever is in them, and never with a secret."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.http import HttpRequest, HttpResponse
from django.test import AsyncRequestFactory, RequestFactory
from django.utils.functional import SimpleLazyObject
from rest_framework.exceptions import AuthenticationFailed  # type: ignore[import-untyped]
from rest_framework.request import Request  # type: ignore[import-untyped]

from deferred_signals import Signal
from deferred_signals.codec import Decoder, Encoder
from deferred_signals.codec.requests import RequestSnapshot, environ_snapshot, scope_snapshot
from deferred_signals.exceptions import DecodeError, EncodeError, NotCarriedError
from deferred_signals.strict_json import dump

from .receivers import first, on_request
from .travel import travel

HERE = __name__
SECRETS = {
    "authorization": "Bearer SECRET-token",
    "cookie": "sessionid=SECRET-cookie",
    "proxy-authorization": "Basic SECRET-proxy",
    "x-api-key": "SECRET-key",
    "x-csrftoken": "SECRET-csrf",
    "x-forwarded-client-cert": "SECRET-cert",
}
HARMLESS = {
    "accept-language": "de",
    "referer": "http://a/",
    "user-agent": "Firefox",
    "x-forwarded-for": "10.0.0.1",
    "x-request-id": "r-1",
}


# --- What comes with request_started ---------------------------------------------------------------------------------


def test_of_an_environ_only_the_harmless_part_travels_under_its_own_keys() -> None:
    environ: Any = RequestFactory().post("/päy/?step=2", {"card": "SECRET-body"}, headers=SECRETS | HARMLESS).environ
    environ |= {"SSL_CLIENT_KEY": "SECRET-ssl", "REMOTE_ADDR": "10.0.0.2", "AWS_SECRET_ACCESS_KEY": "SECRET-aws"}
    made = environ_snapshot(environ)
    assert made.items() <= environ.items()
    assert made == travel(made)
    assert made == {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": environ["PATH_INFO"],
        "QUERY_STRING": "step=2",
        "CONTENT_TYPE": environ["CONTENT_TYPE"],
        "CONTENT_LENGTH": environ["CONTENT_LENGTH"],
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "10.0.0.2",
        "wsgi.url_scheme": "http",
        "HTTP_ACCEPT_LANGUAGE": "de",
        "HTTP_REFERER": "http://a/",
        "HTTP_USER_AGENT": "Firefox",
        "HTTP_X_FORWARDED_FOR": "10.0.0.1",
        "HTTP_X_REQUEST_ID": "r-1",
    }
    assert "SECRET" not in dump(Encoder().encode(made))


def test_of_a_scope_only_the_harmless_part_travels_under_its_own_keys() -> None:
    scope: Any = AsyncRequestFactory().post("/päy/?step=2", {"card": "SECRET"}, headers=SECRETS | HARMLESS).scope
    scope |= {"session": "SECRET", "user": "SECRET", "state": {"key": "SECRET"}, "extensions": {}, "raw_path": b"/p"}
    made = scope_snapshot(scope)
    assert made == travel(made)
    headers = made.pop("headers")
    assert {name.decode(): value.decode() for name, value in headers} == HARMLESS | {
        "content-type": dict(scope["headers"])[b"content-type"].decode()
    }
    assert made.items() <= scope.items()
    assert set(made) == {
        "type",
        "http_version",
        "method",
        "path",
        "raw_path",
        "query_string",
        "client",
        "server",
        "scheme",
    } & set(scope)
    assert "SECRET" not in dump(Encoder().encode(made))


def test_the_names_of_a_scopes_headers_are_compared_without_case() -> None:
    made = scope_snapshot({"headers": [(b"User-Agent", b"Lynx"), (b"Cookie", b"SECRET")]})
    assert made == {"headers": [(b"User-Agent", b"Lynx")]}


def test_an_environ_or_a_scope_that_lacks_almost_everything_is_no_obstacle() -> None:
    assert environ_snapshot({}) == {}
    assert scope_snapshot({"type": "websocket"}) == {"type": "websocket"}


# --- Requests in bad shape -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["lone \udcff", "latin \xff\xfe", "nul \x00", "emoji 😀"], ids=ascii)
def test_text_in_any_shape_arrives_and_what_utf8_cannot_say_as_its_escape(text: str) -> None:
    request = RequestFactory().get("/")
    shown = text.replace("\udcff", "\\udcff")
    request.path = text
    keys = ("QUERY_STRING", "REMOTE_ADDR", "HTTP_USER_AGENT", "HTTP_HOST", "wsgi.url_scheme")
    request.META.update(dict.fromkeys(keys, text))
    arrived = travel(request)
    assert (arrived.path, arrived.query, arrived.remote_addr) == (shown, shown, shown)
    assert (arrived.headers["user-agent"], arrived.host) == (shown, None)
    assert travel(environ_snapshot(request.META))["HTTP_USER_AGENT"] == shown
    assert travel(scope_snapshot({"path": text})) == {"path": shown}


@pytest.mark.parametrize("host", ["evil host", "", "a" * 300, "[::1", "\udcff", None, 5], ids=ascii)
def test_a_request_with_a_broken_host_arrives_without_it(host: Any) -> None:
    request = RequestFactory().get("/")
    request.META["HTTP_HOST"] = host
    if host is None:
        del request.META["SERVER_NAME"]
    assert travel(request).host is None


def test_a_request_of_asgi_arrives_as_one_of_wsgi_does() -> None:
    request = AsyncRequestFactory().get("/pay/", {"q": "ü"}, headers=SECRETS | HARMLESS)
    request.user = AnonymousUser()
    arrived = travel(request)
    assert arrived == RequestSnapshot(
        method="GET",
        path="/pay/",
        query="q=%C3%BC",
        scheme="http",
        host="testserver",
        remote_addr="127.0.0.1",
        headers=HARMLESS,
        user=AnonymousUser(),
    )
    assert "SECRET" not in dump(Encoder().encode(request))


def test_a_request_of_a_class_of_ones_own_arrives() -> None:
    class Own(HttpRequest):
        """As tenants' and webhooks' libraries have them."""

    request = Own()
    request.path, request.method = "/own/", "GET"
    assert (travel(request).path, travel(request).user) == ("/own/", None)


def test_a_user_that_cannot_be_asked_for_is_a_marker_that_tells_the_cause() -> None:
    class Guarded(HttpRequest):
        @property
        def user(self) -> Any:  # type: ignore[override]
            raise PermissionError("SECRET")

    request = Guarded()
    request.path = "/there/"
    found = travel(request)
    assert found.path == "/there/"
    with pytest.raises(NotCarriedError, match=r"^request\.user .* that raised PermissionError") as caught:
        str(found.user)
    assert "SECRET" not in str(caught.value)


def test_a_snapshot_can_be_sent_on() -> None:
    once = travel(RequestFactory().get("/"))
    assert travel(once) == once


# --- Django REST framework -------------------------------------------------------------------------------------------


def test_a_request_of_rest_framework_arrives_with_the_user_whom_it_has_authenticated() -> None:
    request = Request(RequestFactory().get("/api/", headers=SECRETS | HARMLESS))
    request.user = User(pk=7, username="ada")
    arrived = travel({"request": request, "user": request.user})
    assert type(arrived["request"]) is RequestSnapshot
    assert (arrived["request"].path, arrived["request"].headers) == ("/api/", HARMLESS)
    assert arrived["request"].user == arrived["user"] == request.user
    assert "SECRET" not in dump(Encoder().encode(request))


class NeverAsked:
    def authenticate(self, request: Any) -> Any:
        raise AuthenticationFailed


def test_the_send_authenticates_nobody_and_swallows_no_refusal() -> None:
    inner: Any = RequestFactory().get("/api/")
    inner.user = SimpleLazyObject(AnonymousUser)
    request = Request(inner, authenticators=[NeverAsked()])
    assert type(travel(request).user) is AnonymousUser
    with pytest.raises(AuthenticationFailed):
        request.user  # noqa: B018 - asking is what authenticates


# --- AnonymousUser ---------------------------------------------------------------------------------------------------


class Guest(AnonymousUser):
    """A nobody of the project's own."""

    username: Any = "guest"


class Numbered(AnonymousUser):
    def __init__(self, number: int) -> None:
        self.number = number


class Newborn(AnonymousUser):
    def __new__(cls) -> Any:
        return super().__new__(cls)


def test_a_nobody_of_ones_own_arrives_as_its_own_class() -> None:
    assert type(travel(AnonymousUser())) is AnonymousUser
    arrived = travel(Guest())
    assert type(arrived) is Guest
    assert arrived.username == "guest"
    local: Any = type("Local", (AnonymousUser,), {})
    with pytest.raises(EncodeError, match="dotted path"):
        Encoder().encode(local())


@pytest.mark.parametrize("value", [Numbered(1), Newborn()], ids=["state", "__new__"])
def test_a_nobody_that_is_more_than_its_class_is_refused(value: Any) -> None:
    with pytest.raises(EncodeError, match="holds something"):
        Encoder().encode(value)


@pytest.mark.parametrize("data", [5, "builtins.dict", f"{HERE}.Newborn", f"{HERE}.SECRETS", "no.where", [], {}, True])
def test_nonsense_for_a_nobody_is_a_decode_error(data: Any) -> None:
    with pytest.raises(DecodeError):
        Decoder().decode({"$anonymous": data})


def test_an_upload_in_the_request_does_not_matter() -> None:
    request = RequestFactory().post("/", {"file": io.BytesIO(b"SECRET")})
    assert request.FILES
    assert "SECRET" not in dump(Encoder().encode(request))


rang: Any = Signal()


class TestUsersWhomNobodyHasAskedFor:
    """To ask takes the session and the database, and makes Django vary the response on the cookie."""

    @pytest.fixture
    def request_(self) -> Any:
        request = RequestFactory().get("/")
        request.session = SessionStore()
        AuthenticationMiddleware(lambda request: HttpResponse())(request)
        return request

    def test_a_receiver_that_does_not_name_the_request_asks_nobody(self, link, memory, calls, request_):
        link(rang, first)
        rang.send(sender=None, request=request_)
        assert not request_.session.accessed
        memory.deliver()
        [(_, _, kwargs)] = calls
        assert kwargs["request"].path == "/"
        with pytest.raises(NotCarriedError, match=r"^request\.user .* Name request in the receiver"):
            str(kwargs["request"].user)

    def test_one_that_is_known_already_travels(self, link, memory, calls, request_):
        assert not request_.user.is_authenticated
        link(rang, first)
        rang.send(sender=None, request=request_)
        memory.deliver()
        assert calls[0][2]["request"].user == AnonymousUser()

    def test_a_receiver_that_names_the_request_asks(self, link, memory, calls, request_):
        link(rang, on_request)
        rang.send(sender=None, request=request_)
        assert request_.session.accessed
        memory.deliver()
        assert calls[0][2]["request"].user == AnonymousUser()
