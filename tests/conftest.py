"""The summary of the servers that a run was covered with: nothing is skipped silently."""

import pytest

pytest_plugins = ["tests.kit", "deferred_signals.pytest_plugin"]

BACKENDS = ("Redis or Valkey", "RabbitMQ", "PostgreSQL", "MariaDB", "SQLite", "Chromium")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    # The tests leave these notes on their reports, for those also arrive from xdist's processes.
    reports = [report for found in terminalreporter.stats.values() for report in found]
    notes = {(report.nodeid, *note) for report in reports for note in getattr(report, "user_properties", ())}
    terminalreporter.section("servers of the integration tests")
    if not any("integration/" in report.nodeid for report in reports if hasattr(report, "nodeid")):
        terminalreporter.line("NOT COVERED: no integration test was selected")
        return
    for title in BACKENDS:
        for key, mark in ((f"covered {title}", "covered by"), (f"missing {title}", "NOT COVERED, skipped")):
            said = [text for _, name, text in notes if name == key]
            for text in sorted(set(said)):
                terminalreporter.line(f"{title:<16} {mark} {said.count(text)} tests: {text}")
        if not any(name.endswith(f" {title}") for _, name, _ in notes):
            terminalreporter.line(f"{title:<16} NOT COVERED: no test of this run got to it")
