"""Backends: what a delivery is published to, and so who runs it. Chosen by ``DEFERRED_SIGNALS["BACKEND"]``."""

from .base import Backend, Failure, current

__all__ = ["Backend", "Failure", "current"]
