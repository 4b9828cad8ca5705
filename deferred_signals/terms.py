"""What the settings say of the sends over one connection of a receiver: asked once for each state of the settings."""

from __future__ import annotations

from typing import NamedTuple

from . import conf, encryption, keeping
from .backends.base import Backend, configured, stand_ins
from .options import Options


class Terms(NamedTuple):
    """They hold as long as ``settings`` are those in force."""

    settings: conf.Settings
    backend: Backend
    is_durable: bool
    is_encrypted: bool


def terms_of(options: Options, last: Terms | None) -> Terms:
    """The terms of this moment: the ``last`` ones, if they hold. Raises ConfigurationError where they cannot be met."""
    terms = last
    if terms is None or terms.settings is not conf.current():
        settings = conf.current()
        terms = Terms(settings, configured(), keeping.is_wanted(options), encryption.is_wanted(options))
    (stand_ins[-1] if stand_ins else terms.backend).check()
    if terms.is_encrypted:
        encryption.check()
    return terms
