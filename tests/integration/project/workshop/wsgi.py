"""The application of a server that loads it before it forks: it has published by then."""

from django.core.wsgi import get_wsgi_application

from ..journal import note
from . import signals

application = get_wsgi_application()

note("loaded")
signals.counted.send(sender=None, number=0)
