"""Classes that send Django's own signals: imported, so that a worker finds them, which serves no requests itself."""

from django.core.handlers import asgi, wsgi  # noqa: F401
from django.utils import autoreload  # noqa: F401
