"""The documentation is complete: what a user can name stands in it, defaults and signatures are as documented."""

import dataclasses
import inspect
import operator
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import pytest
from django.core.management import BaseCommand, get_commands, load_command_class
from django.dispatch import Signal

import deferred_signals
from deferred_signals import (
    Delivery,
    backends,
    checks,
    conf,
    django_signals,
    envelope_fields,
    exceptions,
    options,
    outcome,
    signals,
    testing,
)
from deferred_signals.outbox.models import Origin, State

from .named_tests import exists, named_in

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


def tables(page: str) -> Iterator[tuple[str, list[list[str]]]]:
    """The tables of a page: the first word of the head, and the rows' cells."""
    for found in re.finditer(r"^\|.*\n\|[-|]+\n((?:\|.*\n)+)", (DOCS / page).read_text(), re.MULTILINE):
        head, _, *rows = found[0].splitlines()
        yield head.split("|")[1].strip(), [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def rows(page: str, head: str) -> dict[str, list[str]]:
    """The rows of all tables with that head, by what stands in backticks in their first cell."""
    named = [(re.findall("`([^`]+)`", name), cells) for word, of in tables(page) if word == head for name, *cells in of]
    assert named, f"docs/{page} has no table of {head}s"
    return {name: cells for names, cells in named for name in names}


def defaults(page: str, head: str) -> dict[str, Any]:
    """Names and documented defaults, which must be Python."""
    return {name: eval(cells[0].strip("`")) for name, cells in rows(page, head).items()}


def test_every_option_is_documented_with_its_default():
    assert defaults("options.md", "option") == {
        field.name: field.default for field in dataclasses.fields(options.Options)
    }


def test_every_setting_is_documented_with_its_default():
    fields = dataclasses.fields(conf.Settings)
    assert defaults("settings.md", "setting") == {field.name.upper(): field.default for field in fields}


def test_every_backend_of_ours_is_named():
    assert all(f'`"{name}"`' in (DOCS / "settings.md").read_text() for name in backends.base.NAMES)


def test_every_exception_is_documented_at_its_place():
    classes = [
        found
        for found in vars(exceptions).values()
        if inspect.isclass(found) and found.__module__ == exceptions.__name__
    ]
    assert set(rows("exceptions.md", "exception")) == {found.__name__ for found in classes}
    tree = (DOCS / "exceptions.md").read_text().partition("```text\n")[2].partition("```")[0]
    above: list[str] = []
    for line in tree.splitlines():
        name = re.search(r"\w+", line)
        assert name
        depth = name.start() // 4
        above[depth:] = [name[0]]
        if depth:
            bases = [base.__name__ for base in getattr(exceptions, name[0]).__bases__]
            assert bases[0] == above[depth - 1]
            assert line.count("also ") == len(bases) - 1
            assert all(base in line for base in bases[1:])


def test_every_system_check_is_documented():
    of_core = Path(checks.__path__[0])
    sources = "".join(path.read_text() for path in [*of_core.glob("*.py"), of_core.parent / "outbox" / "checks.py"])
    used = set(re.findall(r"deferred_signals\.[A-Z]\d{3}", sources))
    assert used
    assert set(rows("checks.md", "id")) == used


def signature(callable_: Any) -> str:
    """As documented: without annotations and ``self``, further keyword arguments called options."""
    found = inspect.signature(callable_)
    parameters = [
        parameter.replace(
            annotation=parameter.empty,
            name="options" if parameter.kind is parameter.VAR_KEYWORD else name,
        )
        for name, parameter in found.parameters.items()
        if name != "self"
    ]
    return str(found.replace(parameters=parameters, return_annotation=found.empty))


def test_every_public_name_has_its_heading():
    headings = re.findall(r"^### `([^`]+)`$", (DOCS / "reference.md").read_text(), re.MULTILINE)
    assert {heading.partition("(")[0] for heading in headings} == {*deferred_signals.__all__, "Signal.connect"}


@pytest.mark.parametrize(
    "name", [*sorted({*deferred_signals.__all__} - {"Delivery", "Discard", "NotCarried"}), "Signal.connect"]
)
def test_signatures_are_as_documented(name):
    called = operator.attrgetter(name)(deferred_signals)
    assert f"\n### `{name}{signature(called)}`\n" in (DOCS / "reference.md").read_text()


def public(kind: type) -> set[str]:
    """What a class has itself, as documented: methods with their signatures."""
    own = {name: value for name, value in vars(kind).items() if not name.startswith("_")}
    signatures = {name: signature(value) if inspect.isfunction(value) else "" for name, value in own.items()}
    told = {name: text.replace("**options", "**kwargs").replace("Ellipsis", "...") for name, text in signatures.items()}
    return {f"{kind.__name__}.{name}{text}" for name, text in told.items()}


def test_the_testing_kit_is_documented():
    section = (DOCS / "reference.md").read_text().partition("## deferred_signals.testing\n")[2].partition("\n## ")[0]
    terms = {term for line in re.findall("^`.*`$", section, re.MULTILINE) for term in re.findall("`([^`]+)`", line)}
    names = set(testing.__all__)
    functions = {name for name in names if name != "Run" and not name[0].isupper()}
    kinds = {"DeferredSignalsTestCase", "Run", "WorkerKilled", "WorkerDeliveries"}
    assert names == functions | kinds | {"CapturedDelivery", "Deliveries"}
    inner = {"captured", "settled", "capturing", "comparable", "describe", "ended"}  # among the kit's own modules
    expected = {f"{name}{signature(getattr(testing, name))}" for name in functions} | kinds
    for kind in (testing.Deliveries, testing.CapturedDelivery):
        expected |= {term for term in public(kind) if re.split(r"[.(]", term)[1] not in inner}
    in_init = {f"CapturedDelivery.{name}" for name in ("delivery", "outcomes", "is_waiting")}
    assert terms == expected | in_init
    mixin = {name for name in vars(testing.DeferredSignalsTestCase) if not name.startswith("_")} - {"run", "debug"}
    assert all(f"`{name}`" in section for name in mixin)


@pytest.mark.parametrize("module", ["backends", "bulk", "outbox"])
def test_what_a_module_offers_stands_in_its_section_with_its_signature(module):
    offered = import_module(f"deferred_signals.{module}")
    section = (
        (DOCS / "reference.md").read_text().partition(f"\n## deferred_signals.{module}\n")[2].partition("\n## ")[0]
    )
    documented = re.findall("^`(.*)`$", section, re.MULTILINE)
    for name in offered.__all__:
        value = getattr(offered, name)
        assert (f"{name}{own_signature(value)}" if inspect.isfunction(value) else name) in documented
    for path in documented:
        if path.startswith("deferred_signals."):
            source, _, name = path.partition("(")[0].rpartition(".")
            value = getattr(import_module(source), name)
            assert path == f"{source}.{name}{own_signature(value) if inspect.isfunction(value) else ''}"


def own_signature(function: Any) -> str:
    """Without annotations; further keyword arguments under the name that they have."""
    found = inspect.signature(function)
    parameters = [parameter.replace(annotation=parameter.empty) for parameter in found.parameters.values()]
    return str(found.replace(parameters=parameters, return_annotation=found.empty))


def test_every_state_and_every_outcome_is_in_the_glossary():
    words = set(re.findall(r"\*+(\w+)\*+", (DOCS / "glossary.md").read_text()))
    assert words >= {*State.values, *Origin.values, *get_args(outcome.State)}


def test_every_command_is_shown_in_a_block():
    ours = {name for name, app in get_commands().items() if str(app).startswith("deferred_signals")}
    assert ours >= {"deferred_doctor", "relay_outbox"}
    shown = {
        name
        for page in PAGES
        for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL)
        for name in re.findall(r"manage\.py (\w+)", block)
    }
    assert ours - shown == set()


def test_what_a_delivery_says_is_documented():
    section = (DOCS / "reference.md").read_text().partition("### `Delivery`")[2].partition("\n###")[0]
    fields = {field.name for field in dataclasses.fields(Delivery)} - {"at", "shared", "own", "options"}
    properties = {name for name, value in vars(Delivery).items() if isinstance(value, property)} - {"text"}
    assert set(re.findall("^`.*`$", section, re.MULTILINE)) == {
        # Two of them share a line.
        *(f"`{name}`" for name in (fields | properties) - {"receiver", "signal"}),
        "`receiver`, `signal`",
    }


COMMANDS = {path.stem: path for path in Path(deferred_signals.__path__[0]).rglob("management/commands/[!_]*.py")}


def test_every_command_is_documented():
    assert set(rows("commands.md", "command")) == set(COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_of_a_command_is_documented(name):
    app = get_commands()[name]
    parser = load_command_class(app, name).create_parser("manage.py", name)
    of_djangos = {option for action in BaseCommand().create_parser("", "")._actions for option in action.option_strings}
    own = [action for action in parser._actions if not of_djangos & {*action.option_strings}]
    section = (DOCS / "commands.md").read_text().partition(f"\n## `{name}`\n")[2].partition("\n## ")[0]
    words = [(action.option_strings or [str(action.metavar)])[0] for action in own]
    assert section
    assert [word for word in words if not re.search(rf"`{re.escape(word)}\b", section)] == []


def test_every_signal_about_deliveries_is_documented():
    ours = {name for name, value in vars(signals).items() if isinstance(value, Signal)}
    assert set(rows("reference.md", "signal")) == ours


def test_every_signal_that_is_refused_is_named():
    text = (DOCS / "options.md").read_text()
    assert all(f"`{name}`" in text for _, name, _ in django_signals._REFUSED)


def test_every_key_of_the_wire_is_documented():
    assert set(rows("wire.md", "key")) == {"v", *envelope_fields.FIELDS}


def test_every_tag_of_the_wire_is_documented():
    # In a process of its own: other tests register codecs.
    script = "import django; django.setup(); from deferred_signals.codec import base; base.load(); print(*base.tags)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(rows("wire.md", "tag")) - {"$"} == set(done.stdout.split())


def test_every_test_that_is_named_exists():
    for page in PAGES:
        assert [test for test in named_in(page.read_text()) if not exists(test)] == [], page.name


def test_every_link_between_files_leads_to_one():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).is_file(), f"{page.name} links to {target}"
