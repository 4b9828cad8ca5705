"""The rows that the members of a batch refer to, read with one query per model, a little ahead of the receivers.

A reference promises the row as it is at the delivery. So what was read ahead counts for a moment only, and not beyond a
statement of this process that may have changed it: then the row is read again by itself, as without a batch. And it
counts only in the language and time zone that it was read in, on which may depend what a field makes of a value, and
not in a context of the users' own: that may be a tenant, and in there the row is another one.
"""

from __future__ import annotations

import copy
import logging
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from typing import Any

from django.db import connections

from . import context
from .codec import Decoder
from .decoding import Fetch
from .envelope import Envelope
from .references import Reference, known_alias, model_of
from .rows import fetch, key_in
from .suppression import suppress

logger = logging.getLogger("deferred_signals")

#: Seconds for which a row that was read ahead counts.
FRESH = 0.05
#: Of a reference: label, key, alias.
_PARTS = 3
#: What begins a statement that changes no row. SELECT ... FOR UPDATE locks.
_READS = ("SELECT", "SAVEPOINT", "RELEASE")
#: What a name of a table can have around it, and between its schema and itself.
_MARKS = '"`[]'
_BETWEEN = re.compile(r"[\"`\]]\.[\"`\[]")


class Rows:
    """What the members of a batch refer to, in their order; None stands for one that cannot be read."""

    def __init__(self, members: Sequence[Envelope | None]) -> None:
        contexts = [None if member is None else _context_of(member) for member in members]
        #: The context that they are read in: the first, which most members have.
        self._context = next((one for one in contexts if one is not None), {})
        #: Of each member, the label, key and alias of its references.
        self._members = [
            list(references_in(member.kwargs)) if member is not None and one == self._context else []
            for member, one in zip(members, contexts, strict=True)
        ]
        #: By the reference: the row, and how often it is still asked for.
        self._ahead: dict[Reference, list[Any]] = {}
        #: By label of the model and alias, the tables of the rows that were read ahead.
        self._tables: dict[tuple[str, str], list[str]] = {}
        #: Members whose rows are read together; up to which of them they are; when they were read.
        self._window = len(members)
        self._begun = self._until = 0
        self._read_at = 0.0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """In the block, see the statements that this thread sends to the databases of the rows."""
        with ExitStack() as stack:
            for alias in {alias for member in self._members for _, _, alias in member}:
                if alias in connections:
                    stack.enter_context(connections[alias].execute_wrapper(self._see))
            yield

    def _see(self, execute: Any, sql: Any, params: Any, many: bool, how: Any) -> Any:
        try:
            return execute(sql, params, many, how)
        finally:  # of many rows that were to be changed, some may be, whatever came of the others
            if self._ahead and not (text := str(sql)).startswith(_READS):
                self._forget(text.lower(), how["connection"].alias)

    def _forget(self, statement: str, alias: str) -> None:
        changed = [
            kind for kind, tables in self._tables.items() if kind[1] == alias and any(map(statement.count, tables))
        ]
        for one in [one for one in self._ahead if (one.label, one.alias) in changed]:
            del self._ahead[one]

    def fetch_for(self, member: Envelope, number: int) -> Fetch | None:
        """By what the references of a member are fetched, which is to run now as that number; None if one by one."""
        self.come_to(number)
        return self.fetch if _context_of(member) == self._context else None

    def come_to(self, number: int) -> None:
        """Read ahead for the member of this number and those after it, if that was not done, or too long ago."""
        now = time.monotonic()
        if number < self._until and now - self._read_at < FRESH:
            return
        if number:
            # Twice what was used of the last window, so that slow receivers do not have rows read in vain.
            self._window = 2 * max(1, number - self._begun)
        self._begun, self._until, self._read_at = number, number + self._window, now
        self._ahead.clear()
        wanted: dict[tuple[str, str], list[Any]] = defaultdict(list)
        for member in self._members[number : self._until]:
            for label, pk, alias in member:
                wanted[label, alias].append(pk)
        for (label, alias), keys in wanted.items():
            try:
                # As in decoding: instances are made, and the signals of that are no news.
                with suppress():
                    copy_context().run(self._read, label, alias, keys)
            except Exception:
                # Whatever a database, a field or a model says. Each member reads its own, and is judged by that.
                logger.debug("Rows of %s could not be read ahead", label, exc_info=True)

    def _read(self, label: str, alias: str, keys: list[Any]) -> None:
        model: Any = model_of(label)
        known_alias(alias)
        context.enter_djangos(self._context)
        counts: dict[Any, int] = defaultdict(int)
        references: dict[Any, list[Reference]] = defaultdict(list)
        read: dict[Any, Any] = {}
        for pk in keys:
            given = Decoder().decode(pk) if type(pk) is dict else pk
            key = key_in(model, given)
            if read.setdefault(given, key) != key:
                return  # 1 and True are equal, and as texts they are two keys
            counts[key] += 1
            references[key].append(Reference(label, given, alias))
        if len(counts) < 2:  # noqa: PLR2004 - one is read when it is asked for
            return
        # Of the parents too, whose columns are the row's.
        tables = [one._meta.db_table.lower() for one in (model, *model._meta.get_parent_list())]
        # Without a schema, after which other statements have other quotation marks, or none.
        self._tables[label, alias] = [_BETWEEN.split(table.strip(_MARKS))[-1] for table in tables]
        found = list(model._base_manager.using(alias).filter(pk__in=list(counts)))
        if len({row.pk for row in found}) < len(found):
            return  # of a view with several rows under one key, none is chosen
        for row in found:
            ahead = [row, counts[row.pk]]
            for reference in references[row.pk]:
                self._ahead[reference] = ahead

    def fetch(self, reference: Reference) -> Any:
        """The row of a reference, an object of its own for each that asks; raises as ``rows.fetch``."""
        ahead = self._ahead.get(reference)
        if ahead is None:
            return fetch(reference)
        row, left = ahead
        ahead[1] = left - 1
        if left <= 1:
            del self._ahead[reference]
            return row
        try:
            # With what is in its fields: a receiver may change a dict of a JSONField.
            return copy.deepcopy(row)
        except Exception:  # noqa: BLE001 - a field or a model may hold what cannot be copied
            return fetch(reference)


def _context_of(member: Envelope) -> Mapping[str, Any] | None:
    """In which language and time zone its rows may be read ahead; None if they may not, or that is not known yet."""
    return context.only_djangos(member.context) if member.encrypted is None else None


def references_in(encoded: Any) -> Iterator[tuple[str, Any, str]]:
    """The label, the key, still encoded, and the alias of each reference that stands in what is encoded."""
    found = encoded.get("$ref") if type(encoded) is dict and len(encoded) == 1 else None
    if found is not None:
        if type(found) is list and len(found) == _PARTS and type(found[0]) is type(found[2]) is str:
            yield found[0], found[1], found[2]
        return
    # Of a payload that cannot be read there is nothing, and a forged one may have anything.
    parts = encoded.values() if type(encoded) is dict else encoded if type(encoded) is list else ()
    for part in parts:
        # Of most arguments, none is a container, and each step down takes as long as ten looks.
        if type(part) is dict or type(part) is list:
            yield from references_in(part)
