"""The same question in parallel and serially."""

import re

from playwright.sync_api import expect

from tests.page.support import THREE_PARTS, accessibility


def test_race(server, open_window):
    window = open_window(f"{server.url}/#race")
    page = window.page
    page.get_by_label("Question of the race").fill(THREE_PARTS)
    page.get_by_label("Rounds").fill("2")
    page.get_by_role("button", name="Race", exact=True).click()
    result = page.locator(".result")
    expect(result).to_contain_text("as fast in parallel", timeout=60_000)
    expect(result).to_contain_text("Both wrote the same text.")
    measured, allowed = map(float, re.search(r"([\d.]+)× as fast.*allows ([\d.]+)×", result.inner_text()).groups())
    print(f"race: {measured}x measured, the tree allows {allowed}x")
    assert measured > 0 and allowed > 1
    rows = page.locator(".explanation tbody tr")
    expect(rows).to_have_count(2)
    cells = [row.locator("td").all_inner_texts() for row in rows.all()]
    assert int(cells[0][2]) < int(cells[1][2])  # steps
    expect(page.locator(".explanation")).to_contain_text("Browser and server are on one machine here")
    expect(page.locator(".racer canvas")).to_have_count(2)
    window.shot("race")
    accessibility(window, "race")
