"""Servers for tests: one for all that only ask, fresh ones for those that need options or end them."""

import pytest
from running import start_server


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    running = start_server(tmp_path_factory.mktemp("server") / "log")
    yield running
    assert running.stop() == 0


@pytest.fixture
def fresh_server(tmp_path):
    """A factory of servers with their own options."""
    started = []

    def start(*options):
        started.append(start_server(tmp_path / f"log{len(started)}", *options))
        return started[-1]

    yield start
    for one in started:
        one.stop()
