"""Requests through Django's real handlers: of the test client, of a WSGI server, of ASGI."""

import asyncio
import threading
import urllib.error
import urllib.request
from wsgiref.simple_server import WSGIRequestHandler, make_server

from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.test import Client

from ..recording import Recorder, recording

SIGNALS = ("request_started", "request_finished", "got_request_exception")
SECRET = "do-not-carry"
HEADERS = {
    "Authorization": f"Bearer {SECRET}",
    "Cookie": f"sessionid={SECRET}",
    "Proxy-Authorization": f"Basic {SECRET}",
    "User-Agent": "Lynx",
    "Accept-Language": "de, en;q=0.5",
    "X-Request-Id": "r-1",
}


def _answer(found: Recorder) -> dict[str, object]:
    deliveries = [delivery for deliveries in found.published.values() for delivery in deliveries]
    return found.answer() | {
        "senders": sorted({getattr(arguments["sender"], "__name__", "None") for _, arguments in found.live}),
        "secrets in live arguments": any(SECRET in repr(arguments) for _, arguments in found.live),
        "secrets in deliveries": [delivery.text for delivery in deliveries if SECRET in delivery.text],
    }


def of_the_test_client():
    client = Client(raise_request_exception=False, headers=HEADERS)
    with recording(*SIGNALS) as found:
        assert client.get("/hello/?a=1&a=%C3%A4").status_code == 200
        assert client.post("/fail/?b=2", {"password": SECRET}).status_code == 500
    return _answer(found)


class _Quiet(WSGIRequestHandler):
    def log_message(self, *args):
        pass


def of_a_wsgi_server():
    with recording(*SIGNALS) as found, make_server("127.0.0.1", 0, WSGIHandler(), handler_class=_Quiet) as server:
        for path in ("/hello/?a=1", "/fail/"):
            thread = threading.Thread(target=server.handle_request)
            thread.start()
            request = urllib.request.Request(f"http://127.0.0.1:{server.server_port}{path}", headers=HEADERS)
            try:
                urllib.request.urlopen(request, timeout=10).close()
            except urllib.error.HTTPError as error:
                error.close()
            thread.join()
    return _answer(found)


def of_asgi():
    messages = []

    async def ask(path, query):
        asked = asyncio.Event()

        async def receive():
            if asked.is_set():
                await asyncio.Event().wait()  # the client stays
            asked.set()
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            messages.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "https",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query,
            "headers": [
                (b"host", b"testserver"),
                *((name.lower().encode(), value.encode()) for name, value in HEADERS.items()),
            ],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 443),
            "state": {"secret": SECRET},
            "extensions": {},
        }
        await ASGIHandler()(scope, receive, send)

    with recording(*SIGNALS) as found:
        asyncio.run(ask("/hello/", b"a=1"))
        asyncio.run(ask("/fail/", b""))
    return _answer(found) | {
        "statuses": [message["status"] for message in messages if message["type"] == "http.response.start"]
    }
