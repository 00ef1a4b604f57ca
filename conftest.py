"""At the end of every run, with or without servers: which versions it was made with."""

import pytest

from integration.servers.versions import table, this_run, write_down


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of this run, or of all runs of the file that the environment names."""
    passed = len(terminalreporter.stats.get("passed", ()))
    terminalreporter.section("tested with")
    terminalreporter.write(table(write_down(this_run(passed))))
