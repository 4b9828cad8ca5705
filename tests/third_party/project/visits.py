"""How the magazine is used: through its pages and its API, as a browser and an app do."""

import base64
import io
import re
import time
from typing import Any

from django.conf import settings
from django.test import Client
from knox.models import AuthToken
from oauth2_provider.models import Application
from PIL import Image

from deferred_signals import backends
from deferred_signals.backends.memory import MemoryBackend

from .journal import note, notes
from .models import Article

PASSWORD = "ain7Eeph"
DEADLINE = 30.0


def all_of_them() -> None:
    become_a_reader()
    lend_the_account_to_an_app()
    use_the_api()
    write_an_article()


class Visitor(Client):
    """A browser that waits, after each page, until all that the page has sent is delivered."""

    def request(self, **request: Any) -> Any:
        response = super().request(**request)
        settle()
        return response

    def fill_in(self, path: str, expect: int = 302, **form: Any) -> Any:
        response = self.post(path, form, headers={"user-agent": "Lynx"})
        assert response.status_code == expect, (path, response.status_code, response.content)
        return response


def settle() -> None:
    backend = backends.current()
    if isinstance(backend, MemoryBackend):
        while backend.payloads:
            backend.deliver()
        return
    deadline = time.monotonic() + DEADLINE
    while len(notes("published")) > sum(end["state"] != "retry" for end in notes("finished")):
        if time.monotonic() > deadline:
            raise TimeoutError("Not everything was delivered in time.")
        time.sleep(0.01)


def path_in_the_last_mail() -> str:
    found = re.search(r"http://testserver(/\S+)", notes("mail")[-1]["body"])
    assert found
    return found[1]


def become_a_reader() -> None:
    """django-allauth: sign up, confirm, log in, change the address and the password, log out, forget the password."""
    ada = Visitor()
    ada.fill_in("/accounts/signup/", username="ada", email="ada@example.com", password1=PASSWORD, password2=PASSWORD)
    ada.fill_in(path_in_the_last_mail())
    ada.fill_in("/accounts/login/", expect=200, login="ada", password="wrong")
    ada.fill_in("/accounts/login/", login="ada", password=PASSWORD)
    ada.fill_in("/accounts/email/", action_add="", email="lovelace@example.com")
    ada.fill_in(path_in_the_last_mail())
    ada.fill_in("/accounts/email/", action_primary="", email="lovelace@example.com")
    ada.fill_in("/accounts/email/", action_remove="", email="ada@example.com")
    ada.fill_in("/accounts/password/change/", oldpassword=PASSWORD, password1=f"{PASSWORD}2", password2=f"{PASSWORD}2")
    ada.fill_in("/accounts/logout/")
    ada.fill_in("/accounts/password/reset/", email="lovelace@example.com")
    page = ada.get(path_in_the_last_mail(), follow=True)
    ada.fill_in(page.request["PATH_INFO"], password1=PASSWORD, password2=PASSWORD)


def lend_the_account_to_an_app() -> None:
    """django-oauth-toolkit: authorize in the browser; the app fetches its token."""
    application = Application.objects.create(
        name="Reader",
        client_type="confidential",
        client_secret="secret",
        hash_client_secret=False,
        authorization_grant_type="authorization-code",
        redirect_uris="http://reader.example/done",
    )
    asked = {
        "client_id": application.client_id,
        "response_type": "code",
        "redirect_uri": "http://reader.example/done",
        "scope": "read",
        "state": "1",
    }
    ada = Visitor()
    ada.fill_in("/accounts/login/", login="ada", password=PASSWORD)
    answer = ada.fill_in("/o/authorize/", allow="Authorize", **asked)
    [code] = re.findall(r"code=([^&]+)", answer["location"])
    Visitor().fill_in(
        "/o/token/",
        expect=200,
        grant_type="authorization_code",
        code=code,
        redirect_uri="http://reader.example/done",
        client_id=application.client_id,
        client_secret="secret",
    )


def use_the_api() -> None:
    """django-rest-knox on djangorestframework: log in, come back with a token that has expired, log in and out."""
    basic = {"authorization": f"Basic {base64.b64encode(f'ada:{PASSWORD}'.encode()).decode()}", "user-agent": "app/1"}

    def token() -> dict[str, str]:
        answer = Visitor().post("/api/login/", headers=basic)
        assert answer.status_code == 200, answer.content
        return {"authorization": f"Token {answer.json()['token']}", "user-agent": "app/1"}

    assert Visitor().post("/api/logout/", headers=token()).status_code == 204
    expired = token()
    AuthToken.objects.update(expiry="2020-01-01T00:00:00Z")
    assert Visitor().post("/api/logout/", headers=expired).status_code == 401


def write_an_article() -> None:
    """django-simple-history, django-fsm-2 and easy-thumbnails: an article's life."""
    ada = Visitor()
    ada.fill_in("/accounts/login/", login="ada", password=PASSWORD)
    cover = io.BytesIO()
    Image.new("RGB", (80, 60), "red").save(cover, "PNG")
    cover.name = "cover.png"
    cover.seek(0)
    ada.fill_in("/articles/", expect=200, title="On Engines", fee="12.50", cover=cover)
    note("thumbnails", files=sorted(path.name for path in settings.MEDIA_ROOT.rglob("*.jpg")))
    article = Article.objects.get()
    here = f"/articles/{article.pk}/"
    ada.fill_in(here, expect=200, title="On the Engine", labels=["mathematics", "machines"])
    ada.fill_in(f"{here}publish/", expect=200, note="at last")
    ada.fill_in(f"{here}retract/", expect=409)
    # Whoever shows a list of articles asks for thumbnails and does not wait for those that are not there.
    article.cover.get_thumbnail({"size": (5, 5)}, generate=False)
    settle()
    ada.fill_in(f"{here}delete/", expect=200)
    assert not Article.objects.exists()
