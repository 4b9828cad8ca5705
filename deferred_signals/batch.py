"""The batch: one message with several deliveries of one commit to one receiver.

It is signed as a whole and enters through the same Celery task as a single delivery; its members are envelopes::

    {"batch":1,"all":{"v":1,"to":"shop.receivers.index",…},"of":[{"id":"5b0e…",…},{"id":"77a1…",…}]}:q7Zm…

``all`` holds for every member that does not say otherwise, and need not be there. Each member is a delivery for itself:
it has its own id, run and outcome, and is retried alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from . import conf
from .exceptions import NewerWire, OpenError
from .signature import verified
from .strict_json import dump, parse

#: The version of batches that this release writes and reads.
VERSION = 1

_START = '{"batch":'
#: Members that a payload may have: more than any sender puts into one.
MOST = 100_000
#: Characters that a payload may have beyond twice MAX_SIZE: encryption takes a third of it, and each member a little
#: that does not count at its sender, as one that was retried notes this and that.
_SLACK = 1024 * 1024


def text_of(texts: Iterable[str], shared: str = "") -> str:
    """The text of a batch, not yet signed, of the texts of its members, and of what holds for all of them."""
    for_all = f'"all":{shared},' if shared else ""
    return f'{_START}{VERSION},{for_all}"of":[{",".join(texts)}]}}'


def rest_of(members: Sequence[dict[str, Any]]) -> str:
    """The text of a batch of members that were read from one; no larger than that was.

    What most of them share is one object, which was written once.
    """
    shared = {}
    for key in members[0]:
        if all(key in one for one in members):
            values = {id(one[key]): one[key] for one in members}
            (most, _), *_ = Counter(id(one[key]) for one in members).most_common(1)
            shared[key] = values[most]
    own = ({key: value for key, value in one.items() if shared.get(key, one) is not value} for one in members)
    return text_of(map(dump, own), dump(shared))


def is_batch(payload: Any) -> bool:
    """Whether a payload claims to be a batch."""
    return isinstance(payload, str) and payload.startswith(_START)


def read(payload: str) -> list[Any]:
    """Verify a batch and return the JSON of its members, which are still to be read.

    Raises OpenError when it is not authentic or unreadable, NewerWire when it is of a later version.
    """
    if len(payload) > 2 * conf.current().max_size + _SLACK:
        raise OpenError("The batch is much larger than MAX_SIZE. Is that larger at the sender than here?")
    text = verified(payload)
    try:
        data = parse(text)
        version = data["batch"]
        if type(version) is not int:
            raise ValueError
        if version > VERSION:
            raise NewerWire(f"The batch is of version {version}; this release reads up to {VERSION}.", data)
        members, shared = data["of"], data.get("all", {})
        if type(shared) is not dict:
            raise ValueError
        if version != VERSION or type(members) is not list or not 0 < len(members) <= MOST:
            raise ValueError
    except (ValueError, TypeError, KeyError, RecursionError):
        raise OpenError("The batch is authentic but not as this library writes it.") from None
    return [{**shared, **member} if type(member) is dict else member for member in members] if shared else members
