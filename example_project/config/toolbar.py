"""Which requests django-debug-toolbar is about."""

from debug_toolbar.middleware import show_toolbar
from django.http import HttpRequest


def is_shown(request: HttpRequest) -> bool:
    """Not those by which an open page looks for news each second: the toolbar keeps the last 25 requests."""
    return request.path != "/news/" and show_toolbar(request)
