"""The page answers while much is written: no task of its main thread is long.

What is asserted is a task's own processor time, from the browser's trace: by the clock, which is printed too, a task on a busy
machine is as long as the machine is busy."""

import json
from collections import Counter
from contextlib import contextmanager

from playwright.sync_api import expect

BOUND = 100  # ms of processor time


def tasks_of_the_page(events):
    """(processor time, time by the clock) in ms of each task of the renderer's main thread, but for what the test asks of it."""
    main = {(event["pid"], event["tid"]) for event in events if event.get("args", {}).get("name") == "CrRendererMain"}
    timed = [event for event in events if "tdur" in event and (event["pid"], event["tid"]) in main]
    ours = [event for event in timed if "DevToolsSession" in json.dumps(event.get("args", {}))]
    page, _ = Counter(event["pid"] for event in ours).most_common(1)[0]  # another window may be closing
    moments = [event["ts"] for event in ours if event["pid"] == page]
    tasks = [event for event in timed if event["pid"] == page and event["name"].endswith("RunTask")]
    return [(task["tdur"] / 1000, task["dur"] / 1000) for task in tasks
            if not any(task["ts"] <= moment < task["ts"] + task["dur"] for moment in moments)]



@contextmanager
def longest_task(browser, page, what):
    browser.start_tracing(page=page, categories=["-*", "toplevel", "__metadata"])
    yield
    page.wait_for_timeout(300)
    tasks = tasks_of_the_page(json.loads(browser.stop_tracing())["traceEvents"])
    assert len(tasks) > 10, "the trace has no tasks"
    busy, clock = (max(times) for times in zip(*tasks))
    print(f"{what}: {len(tasks)} tasks, at most {busy:.0f} ms of processor time and {clock:.0f} ms by the clock")
    assert busy < BOUND, what


def test_hundred_paths_stay_interactive(browser, scripted, open_window):
    window = open_window(scripted.url)
    page = window.page
    with longest_task(browser, page, "100 paths, 10,000 tokens"):
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
        expect(page.get_by_role("button", name="Retry")).to_be_enabled()
    window.shot("hundred-finished")
    with longest_task(browser, page, "all of them opened"):
        page.get_by_role("button", name="Columns").click()
        expect(page.locator(".lane.open")).to_have_count(100)
    with longest_task(browser, page, "as text"):
        page.get_by_role("button", name="Text").click()
        expect(page.locator(".raw-text")).to_be_visible()
    with longest_task(browser, page, "reloaded"):
        page.reload()
        expect(page.locator(".lane")).to_have_count(100)


def test_a_long_text_without_paths(browser, scripted, open_window):
    window = open_window(scripted.url)
    page = window.page
    with longest_task(browser, page, "10,000 tokens of one branch, formulas and code among them"):
        window.ask("script:long")
        expect(page.locator(".answer")).to_contain_text("the end", timeout=60_000)
        expect(page.locator(".answer pre .keyword").first).to_be_attached()
    with longest_task(browser, page, "reloaded"):
        page.reload()
        expect(page.locator(".answer pre .keyword")).to_have_count(100)
        expect(page.locator(".answer math")).to_have_count(500)
