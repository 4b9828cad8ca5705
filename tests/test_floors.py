"""The staircase: imports inside the package point down, without cycles, and no room outgrows its sentence."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "deferred_signals"
ROOT = PACKAGE.name

# A folder stands for all its modules. Rooms of one floor may use one another, as long as no circle closes.
FLOORS = {
    7: {"dispatch", "connecting", "deferred_receiver", "bulk"},
    6: {
        "batching",
        "packing",
        "frame",
        "publisher",
        "frames",
        "handover",
        "arguments",
        "django_signals",
        "changes",
        "keys",
        "origin",
        "terms",
    },
    5: {"backends", "coalescing"},
    4: {"tasks", "successors", "worker_request", "worker_guard", "worker_body", "worker_pattern"},
    3: {"delivery", "attempt", "batch_run", "decoding", "handing_on", "prefetch", "keeping", "log_lines"},
    2: {"codec"},
    1: {
        "references",
        "rows",
        "envelope",
        "envelope_fields",
        "batch",
        "time_limits",
        "encryption",
        "signature",
        "options",
        "registry",
        "context",
        "outcome",
        "signal_names",
        "calling",
        "option_checks",
        "parameters",
        "localisation",
        "outage",
        "open_transactions",
        "greenlets",
        "bell",
    },
    0: {
        "exceptions",
        "ids",
        "conf",
        "signals",
        "suppression",
        "strict_json",
        "parts",
        "failpoints",
        "value_checks",
        "setting_checks",
    },
}
# May import any floor; no floor imports them.
BESIDE = {
    "checks", "celery_project", "doctor", "worker_control",
    "apps", "testing", "pytest_plugin", "management", "outbox", "signal_map",
    "tracing", "metrics", "health", "sentry", "debug_toolbar",
}  # fmt: skip
FORBIDDEN_NAMES = {"utils", "helpers", "common"}
LONGEST_MODULE = 200

FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def room(module: str) -> str:
    return module.split(".")[1]


def targets(module: str) -> Iterator[str]:
    """What a module imports from the package: at its top, inside functions and under TYPE_CHECKING alike."""
    home = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = home.split(".")[: home.count(".") + 2 - node.level] if node.level else []
            source = ".".join([*above, *filter(None, [node.module])])
            # A name taken from a folder is the module of that name, where there is one.
            names = [full if (full := f"{source}.{alias.name}") in MODULES else source for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == ROOT)


GRAPH = {module: set(targets(module)) - {module} for module in MODULES}
ROOMS = [module for module in MODULES if module != ROOT]


@pytest.mark.parametrize("module", ROOMS)
def test_every_module_has_a_floor(module: str) -> None:
    assert room(module) in FLOOR_OF or room(module) in BESIDE, (
        f"{module} stands on no floor. Put it into a room there is, or add its room to FLOORS in {__file__}, "
        "on the lowest floor from which it still sees what it imports, and to the picture in the design page."
    )
    assert not FORBIDDEN_NAMES & set(module.split(".")), f"{module}: name the concept, not the drawer"


@pytest.mark.parametrize("module", [module for module in ROOMS if room(module) in FLOOR_OF])
def test_imports_point_down(module: str) -> None:
    for target in sorted(GRAPH[module]):
        assert target in MODULES, f"{module} imports {target}, which does not exist"
        assert target != ROOT, f"{module} imports the front door of the package; import the room it needs"
        assert room(target) not in BESIDE, f"{module} imports {target}, which stands beside the stairs"
        assert FLOOR_OF[room(target)] <= FLOOR_OF[room(module)], f"{module} imports {target}, a floor above it"


def test_no_cycles() -> None:
    waiting = {module: set(found) for module, found in GRAPH.items()}
    while free := [module for module, found in waiting.items() if not found & waiting.keys()]:
        for module in free:
            del waiting[module]
    assert not waiting, f"these modules import one another in a circle (or stand above one): {sorted(waiting)}"


@pytest.mark.parametrize("module", ROOMS)
def test_no_module_outgrows_its_room(module: str) -> None:
    length = len(MODULES[module].read_text().splitlines())
    assert length <= LONGEST_MODULE, f"{module} has {length} lines; split it by concept"
