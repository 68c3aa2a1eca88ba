"""The page answers while much is written."""

from playwright.sync_api import expect


def test_hundred_paths_stay_interactive(scripted, open_window):
    window = open_window(scripted.url)
    page = window.page
    window.ask("script:wide")
    expect(page.locator(".lane")).to_have_count(100)
    page.wait_for_timeout(500)
    window.shot("hundred")
    # Opens one while all run: its text is there and grows.
    lane = page.locator("[data-id='1.50']")
    lane.get_by_role("button").click()
    expect(lane.locator(".body")).to_contain_text("4*50=200")
    expect(page.locator(".answer")).to_contain_text("Answer: 100", timeout=60_000)
    expect(page.locator(".meta")).to_contain_text("10,")
    tasks = window.long_tasks()
    print(f"100 paths, 10,000 tokens: {len(tasks)} long tasks, the longest {max(tasks, default=0):.0f} ms (aim: below 100)")
    assert max(tasks, default=0) < 5000  # whatever else the machine does
    window.shot("hundred-finished")
