"""What the server does now."""

import re

from playwright.sync_api import expect

from tests.e2e.running import start_server
from tests.page.support import THREE_PARTS, accessibility, complete, metric


def test_status(server, open_window):
    window = open_window(f"{server.url}/#status")
    page = window.page
    complete(server, THREE_PARTS)
    expect(page.locator(".card", has_text="Server").locator(".value")).to_have_text("ready")
    expect(page.locator(".card", has_text="Model").locator(".value")).to_have_text(server.name)
    expect(page.locator(".card", has_text="Generated").locator(".value")).not_to_have_text("–")
    expect(page.locator(".pages")).to_have_attribute("aria-label", re.compile("free"))
    pages = page.locator(".pages").get_attribute("aria-label")
    total = sum(int(count.replace(",", "")) for count in re.findall(r"([\d,]+) \w+", pages))
    assert total == metric(server, "kv_blocks{")
    page.wait_for_timeout(1200)
    window.shot("status")
    accessibility(window, "status")


def test_a_server_that_is_gone(open_window, tmp_path):
    server = start_server(tmp_path / "log")
    window = open_window(f"{server.url}/#status")
    window.expect_failed_requests()
    page = window.page
    expect(page.locator(".card", has_text="Server").locator(".value")).to_have_text("ready")
    server.stop()
    expect(page.locator("#state")).to_have_text("unreachable")
    expect(page.locator(".card", has_text="Server").locator(".value")).to_have_text("unreachable")
    expect(page.get_by_role("alert")).to_contain_text("no answer from")
    expect(page.get_by_role("alert")).to_contain_text("Is the server still running?")
    window.shot("gone")
    page.get_by_role("link", name="Ask", exact=True).click()
    window.ask("Is somebody there?")
    expect(page.locator(".turn").get_by_role("alert")).to_contain_text("no answer from")
