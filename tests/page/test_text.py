"""What a model writes: hostile text, formulas, code."""

from playwright.sync_api import expect

from tests.page.scripted import CODE, HOSTILE
from tests.page.support import accessibility


def test_hostile_text_is_text(scripted, open_window):
    window = open_window(scripted.url)
    page = window.page
    window.ask("script:hostile")
    expect(page.locator(".answer math")).to_have_count(3)  # of which \\href has become no link
    expect(page.locator(".answer pre code")).to_have_text('print("<script>")\n')
    expect(page.locator(".answer strong")).to_have_text("bold")
    assert page.locator(".answer img, .answer script, .answer a, .answer b").count() == 0
    expect(page.locator(".answer .line", has=page.locator("mark"))).to_have_text("[link](javascript:alert(1)) </Path> end")
    assert page.title() != "owned"
    assert "<img src=x onerror=" in page.locator(".answer").inner_text()
    page.get_by_role("button", name="Text").click()
    assert page.locator(".raw-text").text_content() == HOSTILE
    page.get_by_role("button", name="Text").click()
    window.shot("formulas")
    accessibility(window, "formulas")


def test_code_is_coloured(scripted, open_window):
    window = open_window(scripted.url)
    page = window.page
    window.ask("script:code")
    code = page.locator(".answer pre code")
    expect(code).to_have_count(len(CODE))
    for block, (language, source) in zip(code.all(), CODE):
        expect(block.locator("span").first).to_be_attached() if language in ("python", "c++", "json") else None
        assert block.text_content() == source
        if language in ("", "nolanguage", "constructor"):
            assert block.locator("span").count() == 0
    python = code.first
    expect(python.locator(".keyword").first).to_have_text("def")
    expect(python.locator(".comment")).to_have_text("# <b>bold</b>")
    assert page.locator(".answer b, .answer img").count() == 0
    assert page.title() != "owned"
    window.shot("code")
    accessibility(window, "code")
    page.emulate_media(color_scheme="dark")
    accessibility(window, "code, dark")


def test_a_splitter_that_hangs_is_ended(scripted, open_window):
    window = open_window(scripted.url)
    page = window.page
    scripted.instead["page/colour_worker.js"] = b"onmessage = () => { for (;;); }; postMessage('ready');"
    window.ask("script:hostile")
    expect(page.get_by_role("button", name="Retry")).to_be_enabled()
    window.ask("script:code")
    expect(page.locator("article").nth(1).locator("pre .keyword").first).to_have_text("def")
    assert page.locator("article").first.locator("pre span").count() == 0
    assert page.locator("article").first.locator("pre code").text_content() == 'print("<script>")\n'


def test_lines_without_an_end_cost_no_long_task(scripted, open_window):
    """What could make an expression look at a line again and again."""
    window = open_window(scripted.url)
    page = window.page
    long = ["a $$" * 20_000, "\\(" * 20_000, "a`" * 20_000, "**a" * 20_000, "x" * 100_000]
    lines = [*long, *(line[:3000] for line in long)]
    spent = page.evaluate("""async (lines) => {
      const { Prose } = await import('./page/prose.js');
      return lines.map((line) => {
        const prose = new Prose();
        const start = performance.now();
        prose.add(line + '\\n');
        prose.finish();
        return [performance.now() - start, prose.node.textContent === line];
      });
    }""", lines)
    print("ms for each long line:", [round(ms, 1) for ms, _ in spent])
    assert all(whole for _, whole in spent[: len(long)])
    assert max(ms for ms, _ in spent) < 1000  # a square of 40,000 is seconds
