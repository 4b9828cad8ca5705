"""What our commands do alike on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO, StringIO, TextIOWrapper
from typing import Any, TextIO

import pytest
from django.core.management import CommandError, call_command, get_commands, load_command_class
from django.core.management.base import OutputWrapper

from deferred_signals.exceptions import ConfigurationError
from deferred_signals.management.terminal import INTERRUPTED, PIPE_CLOSED, ProgressLine, TerminalCommand, is_meant

OURS = sorted(name for name, app in get_commands().items() if str(app).startswith("deferred_signals"))


class Says(TerminalCommand):
    """Does one thing."""

    requires_system_checks = ()

    def __init__(self, act: Any) -> None:
        super().__init__()
        self.act = act

    def handle(self, *args: Any, **options: Any) -> None:
        self.act(self)


def says(act: Any) -> None:
    Says(act).run_from_argv(["manage.py", "says"])


@contextmanager
def closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[TextIO]:
    """A standard output that nobody reads any more. Within a test, for pytest puts its own back before that."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as out, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", out)
        yield out


@pytest.mark.parametrize("name", OURS)
def test_every_command_is_one(name):
    assert isinstance(load_command_class(get_commands()[name], name), TerminalCommand)


class TestAReaderWhoHasEnough:
    @pytest.mark.parametrize("length", [1, 100_000])
    def test_ends_the_command_as_a_shell_expects_it(self, monkeypatch, length):
        """Whether the pipe breaks at a line, or with what was held back to the end."""
        with closed(monkeypatch), pytest.raises(SystemExit) as ended:
            says(lambda command: command.stdout.write("x" * length))
        assert ended.value.code == PIPE_CLOSED

    def test_is_not_told_of_it_where_python_ends(self, monkeypatch):
        with closed(monkeypatch) as out:
            with pytest.raises(SystemExit):
                says(lambda command: command.stdout.write("x"))
            out.flush()

    def test_is_not_to_blame_for_another_pipe(self):
        def act(command: Any) -> None:
            raise BrokenPipeError("the broker's")

        with pytest.raises(BrokenPipeError, match="the broker's"):
            says(act)


def test_what_the_terminal_cannot_say_is_written_as_its_number(monkeypatch):
    written = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(written, encoding="ascii"))
    says(lambda command: command.stdout.write("Zoë"))
    assert written.getvalue() == b"Zo\\xeb\n"


def test_what_is_no_terminal_is_left_as_it_is(monkeypatch):
    written = StringIO()
    monkeypatch.setattr(sys, "stdout", written)
    says(lambda command: command.stdout.write("Zoë"))
    assert written.getvalue() == "Zoë\n"


def test_ctrl_c_ends_it_without_a_traceback(capsys):
    def act(command: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        says(act)
    assert ended.value.code == INTERRUPTED
    assert "Broken off. What was done until then stays done." in capsys.readouterr().err


def test_wrong_settings_are_an_error_of_the_command():
    def act(command: Any) -> None:
        raise ConfigurationError("DEFERRED_SIGNALS has no key 'RETENTON'.")

    with pytest.raises(CommandError, match="has no key 'RETENTON'"):
        call_command(Says(act))


@pytest.mark.parametrize("answer", [EOFError, "n", "", "whatever"])
def test_nothing_but_a_yes_is_one(monkeypatch, answer):
    def ask(question: str) -> str:
        assert question == "Delete 2 rows? [y/N] "
        if isinstance(answer, str):
            return answer
        raise answer

    monkeypatch.setattr("builtins.input", ask)
    with pytest.raises(CommandError, match=r"Nothing is changed\. Where nobody can answer, say --no-input"):
        is_meant("Delete 2 rows?")


def test_ctrl_c_at_a_question_ends_the_command_as_anywhere_else(monkeypatch):
    def ask(question: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", ask)
    with pytest.raises(SystemExit) as ended:
        says(lambda command: is_meant("Delete 2 rows?"))
    assert ended.value.code == INTERRUPTED


@pytest.mark.parametrize("answer", ["y", " YES "])
def test_a_yes_is_one(monkeypatch, answer):
    monkeypatch.setattr("builtins.input", lambda question: answer)
    is_meant("Delete 2 rows?")


def test_how_far_it_is_does_not_look_like_an_error():
    class Screen(StringIO):
        def isatty(self) -> bool:
            return True

    stderr = OutputWrapper(Screen())
    stderr.style_func = lambda text: f"in red: {text}"
    ProgressLine(stderr, total=2, many=1)(1)
    assert stderr.getvalue() == "\r1 of 2"
