"""What a payload says, as JSON to be read: only one whose signature is right, and without secrets."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import zip_longest
from typing import Any

from django.views.debug import SafeExceptionReporterFilter

from deferred_signals.envelope import Envelope, unseal
from deferred_signals.exceptions import NewerWire, OpenError
from deferred_signals.outbox.redaction import without_secrets
from deferred_signals.references import look_up

#: Characters that a page shows.
LONGEST = 50_000
_STARS = SafeExceptionReporterFilter.cleansed_substitute
_SECRET = SafeExceptionReporterFilter.hidden_settings


def shown(payload: str) -> str:
    """A payload as text; of one that cannot be opened, or is encrypted, only that."""
    try:
        envelope = unseal(payload, of_any_age=True)
    except OpenError as error:
        # What stands in it, anybody may have written.
        return f"Cannot be verified, and is not shown ({len(payload):,} characters). {error}"
    except NewerWire as error:
        return f"Not shown ({len(payload):,} characters). {error}"
    text = json.dumps(contents(envelope), indent=2, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}\n[... {len(text) - LONGEST:,} characters more]"


def contents(envelope: Envelope) -> dict[str, Any]:
    """Sender, arguments and context of a delivery, encoded, without the values of what is called like a secret."""
    if envelope.encrypted is not None:
        return {"sender": "encrypted", "kwargs": "encrypted", "context": "encrypted"}
    found = {"sender": envelope.sender, "kwargs": envelope.kwargs, "context": envelope.context}
    return {key: _cleansed(value) for key, value in found.items()}


#: Tags behind which a name and its value may be a pair: of dicts with other keys, and of headers, say.
_PAIRS = {"$dict", "$ordereddict", "$counter", "$defaultdict", "$multivaluedict", "$querydict", "$tuple"}


def _cleansed(value: Any) -> Any:
    """JSON without secrets: below names, in pairs, and in texts."""
    if isinstance(value, dict):
        return {key: _STARS if _is_secret(key) else _below(key, inner) for key, inner in value.items()}
    if isinstance(value, list):
        return _without_pairs(value, _cleansed)
    return without_secrets(value) if isinstance(value, str) else value


def _below(key: str, value: Any) -> Any:
    if key in _PAIRS:
        return _all_pairs(value)
    if key == "$namedtuple":
        return _named(value)
    if key.startswith("$") and isinstance(value, list):
        # Behind other tags stands first what it is about: a model may be called auth.User.
        return [_cleansed(inner) for inner in value]
    return _cleansed(value)


def _all_pairs(value: Any) -> Any:
    return _without_pairs(value, _all_pairs) if isinstance(value, list) else _cleansed(value)


def _without_pairs(value: list[Any], cleansed: Callable[[Any], Any]) -> list[Any]:
    """A list, which may be a name and its value, as headers are."""
    match value:
        case [str(name), _] if _is_secret(name):
            return [name, _STARS]
    return [cleansed(inner) for inner in value]


def _named(data: Any) -> Any:
    """A named tuple, of which only its class knows the names: what has none that is known is hidden."""
    match data:
        case [str(path), list(values)]:
            kind = look_up(path)
            fields = getattr(kind, "_fields", ()) if isinstance(kind, type) and issubclass(kind, tuple) else ()
            named = zip_longest(fields[: len(values)], values)
            return [path, [_STARS if name is None or _is_secret(name) else _cleansed(one) for name, one in named]]
    return _STARS


def _is_secret(name: str) -> bool:
    return not name.startswith("$") and bool(_SECRET.search(name))
