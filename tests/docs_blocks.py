"""Run a Markdown file's Python blocks, in order, in one namespace: ``python -m tests.docs_blocks README.md``.

A block below ``<!-- docs-test: file=shop/receivers.py -->`` is a module of that name instead (a receiver must
live in one) and is imported where it stands. Readers see the name above it (docs/conf.py), or what ``as="..."`` behind
the name says instead. The outbox is installed for a file that says ``<!-- docs-test: outbox -->``, and a file may name
other settings than the tests' own: ``<!-- docs-test: settings=tests.settings_of_peers -->``. Blocks in other languages
(``console``, ``text``) are not run.
"""

import importlib
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

BLOCK = re.compile(
    r"""^(?:<!-- docs-test: file=(?P<file>\S+)(?: as="[^"]*")? -->\n)?```python\n(?P<code>.*?)^```$""",
    re.MULTILINE | re.DOTALL,
)

SETTINGS = re.compile(r"^<!-- docs-test: settings=(\S+) -->$", re.MULTILINE)


def settings_of(document: Path) -> str:
    """The settings module for a file; they are wanted before Django is set up."""
    found = SETTINGS.search(document.read_text())
    return found[1] if found else "tests.settings"


def run(document: Path, modules: Path) -> None:
    text = document.read_text()
    namespace: dict[str, Any] = {"__name__": "docs"}
    for block in BLOCK.finditer(text):
        # As many empty lines before it as in the document: a traceback then shows the document's own lines.
        code = "\n" * text.count("\n", 0, block.start("code")) + block["code"]
        if block["file"]:
            module = modules / block["file"]
            module.parent.mkdir(parents=True, exist_ok=True)
            module.write_text(code)
            importlib.invalidate_caches()
            importlib.import_module(".".join(Path(block["file"]).with_suffix("").parts))
        else:
            exec(compile(code, document, "exec"), namespace)


if __name__ == "__main__":
    import django
    from django.test.utils import setup_databases, setup_test_environment, teardown_databases

    django.setup()
    setup_test_environment()
    databases = setup_databases(verbosity=0, interactive=False)
    from deferred_signals import keeping

    if "<!-- docs-test: outbox -->" not in Path(sys.argv[1]).read_text():
        keeping.use(None)
    with tempfile.TemporaryDirectory() as folder:
        sys.path.insert(0, folder)
        run(Path(sys.argv[1]), Path(folder))
    teardown_databases(databases, verbosity=0)
