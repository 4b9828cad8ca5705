"""Which queue a deferred receiver's deliveries go to, as far as can be known without the broker."""

from __future__ import annotations

from ..celery_project import Routing, current_app, unreadable
from ..options import Options


class Routes:
    """Asks Celery's router once for each way that there is."""

    def __init__(self) -> None:
        app = current_app()
        self._routing = None if app is None or unreadable(app) is not None else Routing(app)
        self._found: dict[tuple[str | None, ...], str] = {}

    def queue(self, options: Options) -> str:
        """The queue, or ``exchange/routing key`` where only the broker knows it; empty where it cannot be known.

        Where deliveries do not go through Celery, what the options say.
        """
        if self._routing is None:
            return options.queue or ""
        if options.route not in self._found:
            there = self._routing.known(options)
            if there is None:
                self._found[options.route] = ""
            elif there.queue is None:
                self._found[options.route] = f"{there.exchange}/{there.routing_key}"
            else:
                self._found[options.route] = str(there.queue.name)
        return self._found[options.route]
