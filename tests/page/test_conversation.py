"""Several turns, and what can be done with them: export, import, retry, copy, stop."""

import json
import subprocess

from playwright.sync_api import expect

from tests.e2e.running import wait_until
from tests.page.support import SIX_PRODUCTS, THREE_PARTS, metric


def test_turns_reload_export_and_import(server, open_window, tmp_path):
    window = open_window(server.url)
    page = window.page
    window.ask(THREE_PARTS)
    expect(page.get_by_role("button", name="Retry")).to_be_enabled()
    # A second turn, whose blocks are counted on from the first's.
    window.ask(THREE_PARTS)
    expect(page.get_by_role("button", name="Retry").nth(1)).to_be_enabled()
    shown = page.locator(".answer").all_inner_texts()
    assert "Answer: 13, 1932, 6" in shown[0] and "Answer:" in shown[1]
    assert page.locator("article").nth(1).locator(".lane").count() >= 2
    page.reload()
    expect(page.locator(".answer")).to_have_count(2)
    expect(page.locator(".answer").nth(1)).to_contain_text("Answer:")
    assert page.locator(".answer").all_inner_texts() == shown
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    saved = tmp_path / "conversation.json"
    download.value.save_as(saved)
    messages = json.loads(saved.read_text())["turns"][1]["request"]["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert "</Outline>" in messages[1]["content"] and "</Conclusion>" in messages[1]["content"]  # the history keeps its structure
    page.get_by_role("button", name="New").click()
    expect(page.locator(".answer")).to_have_count(0)
    page.get_by_label("Conversation file").set_input_files(saved)
    expect(page.locator(".answer")).to_have_count(2)
    expect(page.locator(".answer").nth(1)).to_contain_text("Answer:")
    assert page.locator(".answer").all_inner_texts() == shown
    # Not a conversation: said so, and the one that is open stays.
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"format": "multiverse-conversation", "turns": [{"answer": {"tree": [{"id": "7.7", "runs": []}]}}]}')
    page.get_by_label("Conversation file").set_input_files(wrong)
    expect(page.get_by_role("alert")).to_contain_text("can't read the conversation")
    expect(page.locator(".answer")).to_have_count(2)


def test_what_is_set_is_sent(server, open_window):
    window = open_window(server.url)
    page = window.page
    sent = []
    page.on("request", lambda request: sent.append(request.post_data_json) if request.url.endswith("/chat/completions") else None)
    ask = page.get_by_role("region", name="Ask")
    ask.get_by_text("More", exact=True).click()
    for label, value in [("Temperature", "0.5"), ("Max tokens", "40"), ("Seed", "7"), ("Top p", "0.9"), ("Paths at once", "2"), ("System prompt", "Be brief.")]:
        ask.get_by_label(label).fill(value)
    ask.get_by_label("Strict structure").check()
    window.shot("settings")
    window.ask(THREE_PARTS)
    expect(page.locator(".meta")).to_contain_text("cut at the token limit")
    assert sent[0]["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": THREE_PARTS}]
    assert {name: sent[0][name] for name in ("temperature", "max_tokens", "seed", "top_p")} == {"temperature": 0.5, "max_tokens": 40, "seed": 7, "top_p": 0.9}
    assert sent[0]["multiverse"] == {"mode": "parallel", "max_running_paths": 2, "structure": "strict"}
    ask.get_by_text("Off", exact=True).click()
    window.ask(THREE_PARTS)
    expect(page.get_by_role("button", name="Retry").nth(1)).to_be_enabled()
    assert sent[1]["multiverse"]["mode"] == "off" and len(sent[1]["messages"]) == 4
    # What isn't allowed is not sent.
    ask.get_by_label("Temperature").fill("3")
    window.ask(THREE_PARTS)
    page.wait_for_timeout(200)
    assert len(sent) == 2 and page.locator(".answer").count() == 2


def test_retry_repeats_the_seed(server, open_window):
    window = open_window(server.url)
    page = window.page
    page.get_by_label("Temperature").first.fill("1")
    window.ask(THREE_PARTS)
    retry = page.get_by_role("button", name="Retry")
    expect(retry).to_be_enabled()
    seed, text = page.locator(".how").inner_text(), page.locator(".answer").inner_text()
    retry.click()
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    expect(retry).to_be_enabled()
    assert page.locator(".how").inner_text() == seed
    assert page.locator(".answer").inner_text() == text


def test_copied_curl_gives_the_same_answer(server, open_window):
    window = open_window(server.url, permissions=["clipboard-read", "clipboard-write"])
    page = window.page
    window.ask(THREE_PARTS)
    expect(page.get_by_role("button", name="Retry")).to_be_enabled()
    page.get_by_role("button", name="Copy", exact=True).click()
    copied = page.evaluate("navigator.clipboard.readText()")
    page.get_by_role("button", name="Copy as curl").click()
    command = page.evaluate("navigator.clipboard.readText()")
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout)["choices"][0]["message"]["content"] == copied


def test_stop_cancels_on_the_server(server, open_window):
    window = open_window(server.url)
    page = window.page
    before = metric(server, 'requests_aborted_total{model_name="multiverse-tiny",cause="disconnect"')
    page.get_by_text("Serial", exact=True).first.click()  # about 1,600 steps
    window.ask(SIX_PRODUCTS)
    expect(page.locator(".lane .prose").first).not_to_be_empty()
    page.keyboard.press("Escape")
    expect(page.locator(".meta")).to_contain_text("stopped")
    assert wait_until(lambda: metric(server, "requests_running{") == 0, 5)
    aborted = 'requests_aborted_total{model_name="multiverse-tiny",cause="disconnect"'
    assert wait_until(lambda: metric(server, aborted) == before + 1, 5)
    expect(page.get_by_role("button", name="Ask", exact=True)).to_be_enabled()
