"""The map as a flowchart in Mermaid's language, for Markdown, wikis and the documentation of projects.

Names are chosen by projects and may hold anything. All but letters, digits and a few marks are written as Mermaid's
entity codes, so nothing in a name can end its label, begin a directive or be taken for HTML.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..doctor.findings import plain
from .connection import Connection
from .graph import ANY_SENDER, graph, manner, short

#: Marks that mean nothing to Mermaid within quotes.
_HARMLESS = frozenset(" ._-,/")
_CLASSES = (
    "classDef sender fill:#e8eef7,stroke:#5b7db1,color:#1c2733",
    "classDef signal fill:#fff4d6,stroke:#b58900,color:#1c2733",
    "classDef inline fill:#f1f1f1,stroke:#8a8a8a,color:#1c2733",
    "classDef deferred fill:#dff3e4,stroke:#2f8f4e,color:#1c2733",
    "classDef durable fill:#dff3e4,stroke:#2f8f4e,stroke-width:3px,color:#1c2733",
)


def label(text: str) -> str:
    """A text as it stands within quotes; Mermaid takes no empty one."""
    return "".join(
        character if character in _HARMLESS or character.isalnum() else f"#{ord(character)};"
        for character in plain(text) or "-"
    )


def draw(connections: Sequence[Connection]) -> str:
    """The flowchart; the same for the same connections."""
    made = graph(connections)
    senders = {name: f"s{place}" for place, name in enumerate(made.senders)}
    sends = {send: f"g{place}" for place, send in enumerate(made.sends)}
    receivers = {name: f"r{place}" for place, name in enumerate(made.receivers)}
    lines = ["flowchart LR"]
    lines += [f'    {key}["{label(name or ANY_SENDER)}"]:::sender' for name, key in senders.items()]
    lines += [f'    {key}(["{label(short(signal))}"]):::signal' for (signal, _), key in sends.items()]
    lines += [f'    {key}["{label(name)}"]:::{_kind(connections, name)}' for name, key in receivers.items()]
    lines += [f"    {senders[sender]} --- {key}" for (_, sender), key in sends.items()]
    for one in made.lines:
        said = manner(one)
        arrow = "==>" if one.durable else "-.->" if one.deferred else "-->"
        text = f'|"{label(said)}"|' if said else ""
        lines.append(f"    {sends[one.signal, one.sender]} {arrow}{text} {receivers[one.receiver]}")
    return "\n".join([*lines, *(f"    {one}" for one in _CLASSES)]) + "\n"


def _kind(connections: Sequence[Connection], receiver: str) -> str:
    mine = [one for one in connections if one.receiver == receiver]
    if any(one.durable for one in mine):
        return "durable"
    return "deferred" if any(one.deferred for one in mine) else "inline"
