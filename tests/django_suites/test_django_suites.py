"""Django's own tests of its signals, from the sources of the Django installed here, run with our Signal."""

import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import django
import pytest

SUITES = ["dispatch", "signals"]
RUNNER = Path(__file__).with_name("run_suites.py")
ROOT = RUNNER.parent.parent.parent
OURS = "deferred_signals.dispatch.Signal"


def fetch_django_sources(cache: Path) -> Path:
    """The unpacked source release, for wheels come without Django's tests. Moved into place when whole."""
    version = django.get_version()
    sources = cache / version
    if not sources.exists():
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            wanted = ["--no-deps", "--no-binary", "Django", f"Django=={version}"]
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", folder, *wanted]
            subprocess.run(pip, check=True, capture_output=True, text=True, timeout=300)
            (archive,) = Path(folder).glob("*.tar.gz")
            with tarfile.open(archive) as tar:
                # Python's own idiom for releases with and without filters: 3.11.2, Debian's, has none.
                tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, path: member)
                tar.extractall(folder)
            (unpacked,) = (path.parent for path in Path(folder).glob("*/PKG-INFO"))
            unpacked.rename(sources)
    return sources


@pytest.fixture
def django_sources(request: pytest.FixtureRequest) -> Path:
    try:
        return fetch_django_sources(request.config.cache.mkdir("django-sources"))
    except subprocess.SubprocessError as error:
        said = getattr(error, "stderr", None) or error
        reason = f"DJANGO'S OWN SUITES DID NOT RUN: no sources of Django {django.get_version()}: {said}"
    if os.environ.get("DEFERRED_SIGNALS_TEST_REQUIRE_SERVICES") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def run(whose: str, sources: Path) -> tuple[int, dict[str, Any]]:
    """Number of tests run, and the evidence; everything else than "OK" is a failure."""
    runtests = sources / "tests" / "runtests.py"
    # One process: what is judged is the replacement, and forks of it would only hide where it stands.
    command = [sys.executable, str(RUNNER), whose, str(runtests), "--parallel=1", *SUITES]
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert re.search(r"^OK\b", output, re.MULTILINE), output
    ran = re.search(r"^Ran (\d+) tests? in", output, re.MULTILINE)
    found = re.search(r"^EVIDENCE (.+)$", output, re.MULTILINE)
    assert ran, output
    assert found, output
    return int(ran[1]), json.loads(found[1])


def test_djangos_suites_pass_with_our_signal(django_sources: Path) -> None:
    with_djangos, before = run("django", django_sources)
    with_ours, after = run("ours", django_sources)

    assert with_ours == with_djangos > 0
    # The replacement stood before Django made the signals of its models, and only where it should.
    assert before["signals"].keys() == after["signals"].keys() > {"post_save", "m2m_changed", "class_prepared"}
    assert not any(OURS in bases for bases in before["signals"].values())
    assert all(OURS in bases for bases in after["signals"].values())
    assert after["receiver"] == "deferred_signals.dispatch.receiver"
