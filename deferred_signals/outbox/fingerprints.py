"""What a traceback says that is the same each time: by it, failures of one cause are one group.

Where it happened is files and functions, without line numbers and without where the files are installed, which differ
between releases and hosts. What was said is the exception's text, without what differs between deliveries: numbers,
addresses, ids, what stands in quotes. Lines of code and the marks below them are left out.
"""

from __future__ import annotations

import hashlib
import re

#: ``File "/srv/app/shop/receivers.py", line 42, in send``; of an exception group with bars before it.
_FRAME = re.compile(r'^[ |+-]*File "(?P<file>[^"\n]*)", line \d+(?:, in (?P<function>.*))?$')
_INSTALLED = re.compile(r"^.*[/\\](?:site-packages|dist-packages|lib[/\\]python\d[^/\\]*)[/\\]", re.IGNORECASE)
_BAR, _BARS = re.compile(r"^ *\| ?"), re.compile(r"^[ |+-]*")

#: Characters of a line that are looked at.
_LONGEST = 500

#: In this order: the first one takes what the next ones would take apart.
_VARYING = (
    (re.compile(r"""(?<![\w\\])[bruf]{0,2}(?:"(?:[^"\\\n]|\\.)*+"|'(?:[^'\\\n]|\\.)*+')""", re.IGNORECASE), "STRING"),
    (re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://\S+", re.IGNORECASE), "URL"),
    (re.compile(r"(?<![^\s@,;<>()])[^\s@,;<>()]++@[^\s@,;<>()]+"), "ADDRESS"),
    (re.compile(r"\b[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}\b", re.IGNORECASE), "ID"),
    (re.compile(r"\b0x[0-9a-f]+\b", re.IGNORECASE), "HEX"),
    (re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{12,}\b", re.IGNORECASE), "HEX"),
    (re.compile(r"\d+(?:[.,:_-]\d+)*"), "N"),
)  # fmt: skip


def normalised(traceback: str, error: str = "") -> str:
    """A traceback as frames and what was said, a line each; of an error without one, only what was said."""
    lines: list[str] = []
    is_code = False
    for line in traceback.splitlines():
        if (frame := _FRAME.match(line)) is not None:
            lines.append(f"{relative(frame['file'])}:{frame['function'] or ''}".rstrip(":"))
            is_code = True
            continue
        # Below a frame stand its code, marks, and how often it is repeated, all of them indented.
        is_code = is_code and _BAR.sub("", line).startswith("  ")
        bare = _BARS.sub("", line)
        if bare and not is_code:
            lines.append(without_varying(bare))
    return "\n".join(lines) or without_varying(error)


def relative(file: str) -> str:
    """A file's path as it is on every host: below where libraries are, or in its directory."""
    installed = _INSTALLED.sub("", file)
    if installed != file:
        return installed.replace("\\", "/")
    *directories, name = re.split(r"[/\\]", file)
    return "/".join([*map(without_varying, directories[-1:]), name])


def without_varying(text: str) -> str:
    """What an exception says, without what differs from one to the next."""
    text = text[:_LONGEST]
    for pattern, word in _VARYING:
        text = pattern.sub(word, text)
    return text


def fingerprint(receiver: str, error_type: str, normal: str) -> str:
    """What a group is called, the same on every host and in every release of the project."""
    return hashlib.sha256(f"{receiver}\0{error_type}\0{normal}".encode()).hexdigest()[:20]
