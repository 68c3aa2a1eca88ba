"""What goes wrong is said, with what to do."""

from playwright.sync_api import expect

from tests.e2e.running import start_server
from tests.page.support import THREE_PARTS, accessibility


def test_errors_say_what_to_do(scripted, open_window):
    window = open_window(scripted.url)
    window.expect_failed_requests()
    page = window.page
    window.ask("script:full")
    expect(page.get_by_role("alert")).to_contain_text("the queue is full")
    expect(page.get_by_role("alert")).to_contain_text("Try again in 7 s")
    window.ask("script:breaks")
    expect(page.get_by_role("alert").nth(1)).to_contain_text("the machine failed in the middle")
    expect(page.locator(".answer").nth(1)).to_contain_text("a beginning")
    # What the server refuses, word for word.
    page.get_by_role("button", name="New").click()
    window.ask("word " * 30_000)
    expect(page.get_by_role("alert")).to_contain_text("Error 400")
    expect(page.get_by_role("alert")).to_be_in_viewport()
    expect(page.get_by_role("alert")).to_contain_text("but the context has 4096; shorten the prompt")
    expect(page.get_by_role("alert")).to_contain_text("ask something shorter")
    window.shot("errors")
    accessibility(window, "errors")


def test_a_key_is_asked_for_and_kept_in_the_tab(open_window, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("right\n")
    server = start_server(tmp_path / "log", "--api-key-file", str(keys))
    try:
        window = open_window(server.url)
        window.expect_failed_requests()
        page = window.page
        expect(page.locator("#state")).to_have_text("key wanted")
        page.get_by_role("link", name="Status", exact=True).click()
        expect(page.locator(".status").get_by_role("alert")).to_contain_text("Error 401")
        page.get_by_role("link", name="Ask", exact=True).click()
        window.ask(THREE_PARTS)
        expect(page.locator(".ask").get_by_role("alert")).to_contain_text("Set the API key")
        page.get_by_role("button", name="Key").click()
        page.locator("#key-field").fill("right")
        accessibility(window, "the key's dialog")
        page.get_by_role("button", name="Use it").click()
        expect(page.locator("#state")).to_have_text("ready")
        page.get_by_role("button", name="Retry").click()
        expect(page.locator(".answer")).to_contain_text("Answer: 13, 1932, 6")
        assert page.evaluate("JSON.stringify(localStorage)").find("right") < 0
        page.reload()
        expect(page.locator("#state")).to_have_text("ready")
    finally:
        server.stop()
