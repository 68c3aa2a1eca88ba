"""The page in Debian's chromium. Each test gets a fresh window, and fails where the console has an error or a request
leaves the server. Screenshots are kept in build/test-results/page."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.e2e.running import ROOT, start_server
from tests.page.scripted import ScriptedServer

CHROMIUM = "/usr/bin/chromium"
expect.set_options(timeout=30_000)  # the machine may be busy
SHOTS = ROOT / "build/test-results/page"


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    running = start_server(tmp_path_factory.mktemp("page") / "log")
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="session")
def scripted(server):
    proxy = ScriptedServer(server.url)
    yield proxy
    proxy.shutdown()


@pytest.fixture(scope="session")
def browser():
    if not Path(CHROMIUM).exists():
        pytest.skip(f"{CHROMIUM} is missing: scripts/setup --dev installs it")
    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield one
        one.close()


class Window:
    """A window on the page, and what went wrong in it."""

    def __init__(self, browser, url, **options):
        self.context = browser.new_context(viewport={"width": 1440, "height": 900}, **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(30_000)
        self.problems, self.expected = [], []
        origin = re.match(r"https?://[^/]+", url)[0]
        self.page.on("console", lambda message: self.note(message.type in ("error", "warning"), message.text))
        self.page.on("pageerror", lambda error: self.note(True, str(error)))
        self.page.on("request", lambda request: self.note(
            not request.url.startswith((origin, "data:", "blob:")), f"a request to {request.url}"))
        self.page.goto(url)

    def note(self, bad, text):
        if bad:
            self.problems.append(text)

    def expect_failed_requests(self):
        """The browser itself notes answers like 429 in the console."""
        self.expected.append("Failed to load resource")

    def ask(self, question):
        self.page.get_by_label("Question", exact=True).fill(question)
        self.page.get_by_role("button", name="Ask", exact=True).click()

    def shot(self, name):
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}.png")

    def close(self):
        self.context.close()
        return [text for text in self.problems if not any(known in text for known in self.expected)]


@pytest.fixture
def open_window(browser):
    windows = []

    def open_one(url, **options):
        windows.append(Window(browser, url, **options))
        return windows[-1]

    yield open_one
    problems = [problem for window in windows for problem in window.close()]
    assert not problems
