"""Ask and watch: an answer while it is written, and when it is finished."""

import pytest
from playwright.sync_api import expect

from tests.e2e.running import wait_until
from tests.page.support import GROUPS, THREE_PARTS, accessibility, complete


def test_first_load(server, open_window):
    window = open_window(server.url)
    page = window.page
    expect(page.locator("#state")).to_have_text("ready")
    expect(page.locator("#model")).to_have_text(server.name)
    expect(page.get_by_label("Question", exact=True)).to_be_focused()
    window.shot("first")
    accessibility(window, "first load")


def test_branches_appear_while_they_are_written(scripted, open_window):
    window = open_window(scripted.url)
    page = window.page
    # Notes each state that the document passes through.
    page.evaluate("""() => {
      window.seen = [];
      new MutationObserver(() => {
        const live = document.querySelectorAll('.lane:not(.planned):not(.ended)').length;
        const text = document.querySelector('.lane .body')?.textContent.length ?? 0;
        window.seen.push([live, text, !document.querySelector('.tools button').hidden]);
      }).observe(document.querySelector('.turns'), { childList: true, subtree: true, characterData: true });
    }""")
    window.ask(f"paced:{THREE_PARTS}")
    page.wait_for_selector("[data-id='1.3']")
    window.shot("streaming")
    expect(page.locator(".answer")).to_contain_text("Answer: 13, 1932, 6")
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    live = {text for live, text, running in page.evaluate("window.seen") if live == 3 and running}
    print(f"three live lanes, seen in {len(live)} states")
    assert len(live) >= 3


def test_a_finished_answer_folds_and_reads_as_text(server, open_window):
    window = open_window(server.url)
    page = window.page
    window.ask(THREE_PARTS)
    expect(page.locator(".answer")).to_contain_text("Answer: 13, 1932, 6")
    expect(page.get_by_role("button", name="Retry")).to_be_enabled()
    # Folded into outline lines, each with its result; unfolded on demand.
    lanes = page.locator(".block.as-lines .lane")
    expect(lanes).to_have_count(3)
    expect(lanes.nth(1)).to_contain_text("84*23")
    expect(lanes.nth(1)).to_contain_text("R2=1932")
    window.shot("finished")
    lanes.nth(1).get_by_role("button").click()
    expect(lanes.nth(1).locator(".body")).to_contain_text("84*3")
    page.get_by_role("button", name="Columns").click()
    window.shot("columns")
    # As text: exactly what the API says.
    page.get_by_role("button", name="Text").click()
    whole = complete(server, THREE_PARTS)
    assert page.locator(".raw-text").inner_text().strip() == whole["choices"][0]["message"]["content"].strip()
    parallel = whole["usage"]["completion_tokens_details"]["parallel"]
    expect(page.locator(".meta")).to_contain_text(f"{parallel['steps']} steps")
    expect(page.locator(".meta")).to_contain_text(f"critical path {parallel['critical_path_tokens']}")
    label = page.locator(".rail canvas").get_attribute("aria-label")
    assert f"in {parallel['steps'] - 1} steps, 3 paths" in label  # the end token has no text
    accessibility(window, "a finished answer")


def test_nested_lanes_live_below_a_prefix(scripted, open_window):
    window = open_window(scripted.url)
    page = window.page
    window.ask("script:nested")
    inner = page.locator(".lane .lane")
    expect(inner).to_have_count(2)
    expect(inner.first).to_contain_text("inner line 3")
    expect(page.locator("[data-id='1.1'] .body")).to_contain_text("line 3")
    expect(page.locator(".block > header .title").first).to_have_text("2 paths, 2 running")
    window.shot("nested")
    cancelled = scripted.cancelled
    page.get_by_role("button", name="Stop").click()
    assert wait_until(lambda: scripted.cancelled == cancelled + 1, 5)


def test_another_dialect(scripted, open_window):
    window = open_window(scripted.url)
    page = window.page
    window.ask("script:npr")
    expect(page.locator(".conclusion")).to_have_text("both")
    lanes = page.locator(".lane")
    expect(lanes).to_have_count(2)
    expect(lanes.first.locator(".outline")).to_have_text("plan 1")
    lanes.first.get_by_role("button").click()
    expect(lanes.first.locator(".body")).to_have_text("result <Goal> 1")
    expect(page.locator(".answer")).to_contain_text("so it is")


@pytest.mark.parametrize("name, options", [
    ("dark", {"color_scheme": "dark"}),
    ("phone", {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}),
])
def test_dark_and_narrow(server, open_window, name, options):
    viewport = options.pop("viewport", {"width": 1440, "height": 900})
    window = open_window(server.url, **options)
    page = window.page
    page.set_viewport_size(viewport)
    window.ask(GROUPS)
    expect(page.locator(".answer")).to_contain_text("Answer:")
    expect(page.get_by_role("button", name="Retry")).to_be_enabled()
    page.get_by_role("button", name="Columns").first.click()
    window.shot(name)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    accessibility(window, name)
    for view in ("Race", "Trace", "Status"):
        page.get_by_role("link", name=view, exact=True).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"], view
        accessibility(window, f"{name}, {view}")
