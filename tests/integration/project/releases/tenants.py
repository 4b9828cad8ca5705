"""A carrier as users write it; only some releases register it."""

from collections.abc import Iterator
from contextvars import ContextVar

_tenant: ContextVar[str] = ContextVar("tenant", default="nobody")

current = _tenant.get


def entered(tenant: str) -> Iterator[None]:
    token = _tenant.set(tenant)
    yield
    _tenant.reset(token)
