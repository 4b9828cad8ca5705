from django.core.asgi import get_asgi_application

from . import heartbeat

_application = get_asgi_application()


async def application(scope, receive, send):
    heartbeat.start()
    await _application(scope, receive, send)
