"""Without a mouse, and without seeing the page."""

from playwright.sync_api import expect

from tests.page.support import GROUPS, THREE_PARTS, accessibility

ACTIVE = """() => {
  const node = document.activeElement;
  const seen = node.matches('.modes input') ? node.nextElementSibling : node;
  const { outlineStyle, outlineWidth } = getComputedStyle(seen);
  const { top, bottom } = seen.getBoundingClientRect();
  return { id: node.id, name: node.getAttribute('aria-label') ?? node.labels?.[0]?.textContent ?? node.textContent,
           outline: outlineStyle === 'none' ? 0 : parseFloat(outlineWidth), shown: bottom > 0 && top < innerHeight,
           inDialog: node.closest('dialog') !== null, body: node === document.body };
}"""


def from_the_top(page):
    """Where the Tab key begins in a page that has no focus yet."""
    page.evaluate("document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex')")


def stops(page, most):
    """What Tab comes to, one after the other, until it leaves the page."""
    found = []
    for _ in range(most):
        page.keyboard.press("Tab")
        active = page.evaluate(ACTIVE)
        if active["body"]:
            return found
        found.append(active)
    raise AssertionError(f"more than {most} stops: {[stop['name'] for stop in found]}")


def test_every_stop_of_the_tab_key_is_seen_and_named(server, open_window):
    window = open_window(server.url)
    page = window.page
    window.ask(THREE_PARTS)
    expect(page.get_by_role("button", name="Retry")).to_be_enabled()
    page.reload()  # from the beginning
    expect(page.locator(".answer")).to_contain_text("Answer:")
    from_the_top(page)
    found = stops(page, 50)
    names = [" ".join(stop["name"].split()) for stop in found]
    assert all(stop["outline"] >= 2 and stop["shown"] for stop in found), found
    assert all(names), names
    order = ["To the question", "Ask", "Race", "Trace", "Status", "Key", "Help", "New", "Text", "Copy", "Columns", "Question", "More"]
    places = [names.index(name) for name in order]
    assert places == sorted(places), names
    # A block is one stop, and so is the tree over time.
    assert sum(name.startswith(("1gcd", "2 84", "284", "3gcd")) for name in names) == 1, names
    assert sum(name.startswith("Branches over time") for name in names) == 1


def test_ask_and_walk_through_the_answer_with_keys(server, open_window):
    window = open_window(server.url)
    page = window.page
    from_the_top(page)
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="To the question")).to_be_focused()
    page.keyboard.press("Enter")
    question = page.get_by_label("Question", exact=True)
    expect(question).to_be_focused()
    page.keyboard.type("Group A:")
    page.keyboard.press("Shift+Enter")
    assert question.input_value() == "Group A:\n"
    page.keyboard.insert_text(GROUPS.removeprefix("Group A:"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Retry")).to_be_enabled()
    # From path to path, and into one.
    heads = page.locator(".block.as-lines").first.locator("> .lanes > .lane > button")
    heads.first.focus()
    page.keyboard.press("ArrowDown")
    expect(heads.nth(1)).to_be_focused()
    page.keyboard.press("Home")
    page.keyboard.press("End")
    expect(heads.last).to_be_focused()
    page.keyboard.press("Enter")
    expect(heads.last).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("Tab")  # into the path, where its own block is
    expect(page.locator("[data-id='1.2'] .block button").first).to_be_focused()
    # Along the tree, and from there to a path's lane.
    plot = page.locator(".plot")
    plot.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.locator(".tip")).to_contain_text("steps")
    expect(page.locator("#announcer")).to_contain_text("tokens")
    window.shot("keyboard")
    page.keyboard.press("Enter")
    expect(page.locator("[data-id='1.1'] > button").first).to_be_focused()
    expect(page.locator(".tip")).to_be_empty()


def test_dialogs_keep_the_focus_and_give_it_back(server, open_window):
    window = open_window(server.url)
    page = window.page
    for name in ("Key", "Help"):
        opener = page.get_by_role("button", name=name, exact=True)
        opener.focus()
        page.keyboard.press("Enter")
        expect(page.locator("dialog[open]")).to_be_visible()
        accessibility(window, f"dialog {name}")
        window.shot(f"dialog-{name.lower()}")
        for _ in range(8):
            page.keyboard.press("Tab")
            active = page.evaluate(ACTIVE)
            assert active["inDialog"] or active["body"], active  # the body: the browser's own bar
        page.keyboard.press("Escape")
        expect(page.locator("dialog[open]")).to_have_count(0)
        expect(opener).to_be_focused()


def test_a_screen_reader_is_told_little(scripted, open_window):
    window = open_window(scripted.url)
    page = window.page
    expect(page.locator("#state")).to_have_text("ready")
    page.evaluate("""() => {
      window.said = [];
      const regions = document.querySelectorAll('[role=status], [role=alert], [aria-live]');
      const listen = new MutationObserver((list) => window.said.push(list[0].target.textContent));
      for (const region of regions) listen.observe(region, { childList: true, characterData: true, subtree: true });
    }""")
    window.ask("script:wide")
    expect(page.locator("#announcer")).to_contain_text("The answer is complete", timeout=60_000)
    said = page.evaluate("window.said")
    print("said:", said)
    assert said[0] == "The answer is being written" and said[-1].startswith("The answer is complete: 10,")
    assert len(said) <= 4
    live = page.locator(".answer, .meta, .rail").evaluate_all("nodes => nodes.filter((node) => node.closest('[aria-live], [role=status]')).length")
    assert live == 0
