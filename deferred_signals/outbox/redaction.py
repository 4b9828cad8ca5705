"""Taking secrets out of the texts of errors, which are kept for long.

What Django hides in its own error reports is called by the same names here. Its values stand in texts, in any notation:
``password=…``, ``"api_key": "…"``, ``tokens: [...]``, and lines of code in tracebacks. Where it is not clear where a
value ends, rather too much is taken out than too little.
"""

from __future__ import annotations

import re

from django.views.debug import SafeExceptionReporterFilter

#: A name and what stands between it and its value: ``password=``, ``"api_key": ``, ``passwords['ada'] = ``. A word is
#: looked at once, from its beginning: texts may be long. A KeyError is no key.
_NAME = re.compile(
    rf"""(?ix) (?<!\w) (?!\w*(?-i:Error|Exception)\b) (?=\w*?(?:{SafeExceptionReporterFilter.hidden_settings.pattern}))
        \w++ (?:\[[^\[\]\n]*+\])?+ ["')\]\\]*+ \s*+ [=:]=?+ \s*+
    """
)
#: A string, as Python and JSON write it; within another string its quotes have backslashes.
_QUOTED = r"""(?:(?<!\w)[bruf]{1,2})?
    (?: (?P<quote>["']) (?:[^\\"']|\\.|(?!(?P=quote))["'])*+ (?P=quote)
      | (?P<slashes>\\++)(?P<inner>["']) (?:(?!(?<!\\)(?P=slashes)(?P=inner)).)*+ (?P=slashes)(?P=inner) )"""
_STRING = re.compile(_QUOTED, re.IGNORECASE | re.DOTALL | re.VERBOSE)
#: What may begin one that does not end.
_QUOTE = re.compile(r"""[bruf]{0,2}\\*+["']""", re.IGNORECASE)
_OPENING = frozenset("([{")
#: A value without quotes and brackets, or up to the first one of these.
_BARE = re.compile(r"(?:(?:basic|bearer|digest|token)\s++(?=\w))?+[^\s,;&)}\](\[{]*+", re.IGNORECASE)
#: Behind a value, what says that it goes on: an operator, or a string beside a string.
_MORE = re.compile(
    r"""(?x) [^\S\n]*+ (?: [+=]++ [^\S\n]*+ (?=[^\s,;]) | (?:or|and|else) [^\S\n]++ (?=[bruf]{0,2}["'])
      | (?<=["']) (?: %[^\S\n]*+ | (?=[bruf]{0,2}["']) | (?<!\s)\.(?=\w) | (?<!\s)(?=\[) )
      | (?<=["'][^\S\n]) (?: %[^\S\n]*+ | (?=[bruf]{0,2}["']) ) | (?<=[)\]}]) (?=[(\[]) )"""
)
#: Within brackets, what is looked at.
_PIECE = re.compile(
    rf"(?P<string>(?<!\w){_QUOTED}) | (?P<open>[(\[{{]) | [)\]}}]", re.IGNORECASE | re.DOTALL | re.VERBOSE
)
#: The next frame of a traceback: no value goes on there.
_FRAME = re.compile(r"""\n[ |+-]*+File "|\Z""")
#: The password in ``redis://user:password@host``, or the token in ``https://token@host``.
_IN_URL = re.compile(r"""(?<=://)([^\s:/@"'<>]*+:)?[^\s/"'<>]+(?=@)""")
#: How often a text is read again, at most, for brackets that are not closed.
_MOST = 10


def without_secrets(text: str, *, is_cut: bool = False) -> str:
    """A text in which the values of what is called like a secret are stars; ``is_cut`` where it ends too early."""
    stars = SafeExceptionReporterFilter.cleansed_substitute
    reader = _Reader(text, is_cut=is_cut)
    parts, done = [], 0
    while (name := _NAME.search(text, done)) is not None:
        end = reader.end_of_value(name.end())
        parts += [text[done : name.end()], stars if end > name.end() else ""]
        done = end
    parts.append(text[done:])
    return _IN_URL.sub(lambda found: f"{found[1] or ''}{stars}", "".join(parts))


class _Reader:
    """Finds where the values in a text end."""

    def __init__(self, text: str, *, is_cut: bool) -> None:
        self.text = text
        self.is_cut = is_cut
        self.patience = _MOST * len(text)
        #: Up to where the value goes at most that is looked at.
        self.limit = -1

    def end_of_value(self, start: int) -> int:
        """Where a value ends that begins there; there as well if there is none."""
        if start > self.limit:
            self.limit = _FRAME.search(self.text, start).start()  # type: ignore[union-attr]  # there is always an end
        end = self._end_of_term(start)
        while end > start and (more := _MORE.match(self.text, end, self.limit)) is not None:
            start, end = end, self._end_of_term(more.end())
        return end

    def _end_of_term(self, start: int) -> int:
        if (string := _STRING.match(self.text, start, self.limit)) is not None:
            return string.end()
        if _QUOTE.match(self.text, start) is not None:
            return self._end_of_line(start)
        end = start
        while True:
            if self.text[end : end + 1] in _OPENING:
                end = self._end_of_brackets(end)
            after = _BARE.match(self.text, end).end()  # type: ignore[union-attr]  # it matches nothing as well
            if end == after or self.text[after : after + 1] not in _OPENING:
                return after
            end = after

    def _end_of_brackets(self, start: int) -> int:
        """Where the bracket closes that opens there, else the end of the line."""
        depth = 0
        for piece in _PIECE.finditer(self.text, start, self.limit) if self.patience > 0 else ():
            if not piece["string"]:
                depth += 1 if piece["open"] else -1
            if not depth:
                self.patience -= piece.end() - start
                return piece.end()
        self.patience -= self.limit - start
        return self._end_of_line(start) if self.patience > 0 else len(self.text)

    def _end_of_line(self, start: int) -> int:
        """Of what has no end; but where the text is cut, that may be what was cut off."""
        if self.is_cut and self.limit == len(self.text):
            return self.limit
        end = self.text.find("\n", start)
        return len(self.text) if end < 0 else end
