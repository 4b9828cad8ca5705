"""Log-ins and log-outs through Django's own views, with sessions."""

import asyncio

from django.contrib.auth import aauthenticate, authenticate
from django.contrib.auth.models import User
from django.test import AsyncClient, Client

from ..recording import recording


def _sign_up(name):
    User.objects.filter(username=name).delete()  # of scenarios before
    User.objects.create_user(name, f"{name}@example.com", "engine")


def logins():
    _sign_up("ada")
    client = Client(headers={"User-Agent": "Lynx", "Referer": "http://testserver/"})
    with recording("user_logged_in", "user_logged_out", "user_login_failed") as found:
        assert client.post("/login/", {"username": "ada", "password": "difference"}).status_code == 200
        assert client.post("/login/?next=/hello/", {"username": "ada", "password": "engine"}).status_code == 302
        assert client.post("/logout/").status_code == 302
        assert client.post("/logout/").status_code == 302  # nobody
        assert authenticate(username="ada", password="difference", otp="123456", api_key="k") is None
    return found.answer() | {
        "sent": [[name, type(arguments.get("user")).__name__] for name, arguments in found.live],
        "credentials": [arguments["credentials"] for _, arguments in found.live if "credentials" in arguments],
    }


def logins_of_coroutines():
    """Django's own async functions, with the bare requests of its test client."""
    _sign_up("grace")

    async def visit():
        client = AsyncClient()
        assert await client.alogin(username="grace", password="engine")
        await client.alogout()
        assert await aauthenticate(username="grace", password="difference") is None

    with recording("user_logged_in", "user_logged_out", "user_login_failed") as found:
        asyncio.run(visit())
    return found.answer() | {"sent": [[name, type(arguments.get("user")).__name__] for name, arguments in found.live]}
