"""A panel for django-debug-toolbar, ``deferred_signals.debug_toolbar.DeferredSignalsPanel``."""

from .panel import DeferredSignalsPanel

__all__ = ["DeferredSignalsPanel"]
