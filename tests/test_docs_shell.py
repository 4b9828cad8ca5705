"""What the documentation shows for a terminal is right: syntax, the commands' names, their options; and YAML is YAML.

Nothing is run here. ``tests/integration`` runs what can be run: the quickstart, the deployment, adopting and leaving.
"""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from celery.bin.worker import worker
from django.core.management import CommandError, get_commands, load_command_class

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
#: Commands of other applications, which the tests' settings do not have.
FOREIGN = {"migrate_schemas": "django-tenants"}
PROMPT = re.compile(r"^[$#] ", re.MULTILINE)


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def commands(page: str) -> Iterator[str]:
    """The lines of terminals, those that go on with a backslash or an open quote joined; without what is printed."""
    for block in blocks(page, "console"):
        lines = iter(block.splitlines())
        for line in lines:
            if not PROMPT.match(line):
                continue
            command = line[2:]
            while command.endswith("\\"):
                command = command[:-1] + next(lines).lstrip()
            while command.count('"') % 2:  # a prompt that the page has broken inside a string
                command += " " + next(lines)
            yield command


def words(command: str) -> list[str]:
    """As a shell would split it, up to the first pipe or redirection; placeholders are words like others."""
    found = shlex.split(command, comments=True)
    end = min((found.index(mark) for mark in ("|", "&&", "||", ">", "&") if mark in found), default=len(found))
    return found[:end]


def objections(command: str) -> str:
    """What is wrong with a command of Django's or Celery's; empty if nothing is."""
    line = words(command)
    if "manage.py" in {Path(word).name for word in line}:
        place = next(place for place, word in enumerate(line) if Path(word).name == "manage.py")
        name, *arguments = line[place + 1 :]
        if name in FOREIGN:
            return ""
        if name not in get_commands():
            return f"there is no command {name}"
        app = get_commands()[name]
        if not app.startswith("deferred_signals"):
            return ""
        parser = load_command_class(app, name).create_parser("manage.py", name)
        try:
            parser.parse_args([re.sub(r"^(\w{8})-…$", r"\1-5a3b-4b8f-9a49-7f4d8d1be0c1", word) for word in arguments])
        except CommandError as error:
            return str(error)
    elif "celery" in line[:3] and "worker" in line:
        known = {option for parameter in worker.params for option in parameter.opts}
        given = [word for word in line[line.index("worker") + 1 :] if word.startswith("-")]
        unknown = [word for word in given if word.partition("=")[0] not in known]
        return f"celery worker has no {unknown}" if unknown else ""
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_of_a_page_exist_with_their_options_and_are_shell(page: Path):
    for command in commands(page.read_text()):
        assert objections(command) == "", command
        shell = re.sub(r"=?\.\.\.", "", command)
        done = subprocess.run(["bash", "-n", "-c", shell], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stderr)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_yaml_of_a_page_is_yaml(page: Path):
    for block in blocks(page.read_text(), "yaml"):
        assert list(yaml.safe_load_all(block))


def test_there_is_something_to_check():
    assert sum(1 for page in PAGES for _ in commands(page.read_text())) > 50


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("python manage.py redelivr --all", "there is no command redelivr"),
        ("python manage.py redeliver --al-l", "Error: unrecognized arguments: --al-l"),
        ("celery -A proj worker --queue mail", "celery worker has no ['--queue']"),
        ("python manage.py redeliver --all --dry-run", ""),
        ("celery -A proj worker --queues=mail -l INFO", ""),
    ],
)
def test_a_wrong_command_is_found(command: str, wrong: str):
    assert objections(command) == wrong
