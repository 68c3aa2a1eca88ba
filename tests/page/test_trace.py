"""Recorded texts as trees."""

import json
import random
import subprocess

from playwright.sync_api import expect

from tests.e2e.running import BINARY, ROOT
from tests.page.support import TRACES, accessibility


def inspected(file):
    tokenizer = ROOT / "models/multiverse-tiny"
    done = subprocess.run([BINARY, "inspect", "--json", "--tokenizer", tokenizer, file], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def random_texts(chance):
    """Structured texts, well formed and broken: words of the grammar in likely and unlikely order."""
    tags = [f"<{slash}{name}>" for name in ("Parallel", "Goal", "Outline", "Path", "Conclusion") for slash in ("", "/")]

    def block(depth, parent=""):
        labels = [f"{parent}{i}" for i in range(1, chance.randint(2, 4))]
        goal = "".join(f"<Outline>\n{label}: o{label}\n</Outline>\n" for label in labels)
        paths = ""
        for label in labels:
            inner = block(depth + 1, f"{label}.") if depth < 2 and chance.random() < 0.3 else "words é 12\n"
            paths += f"<Path>\n{label}: {inner}</Path>\n"
        return f"<Parallel>\n<Goal>\n{goal}</Goal>\n{paths}<Conclusion>\nc\n</Conclusion>\n</Parallel>\n"

    for _ in range(40):
        text = f"start\n{block(0)}between\n{block(0)}end"
        for _ in range(chance.choice([0, 0, 1, 3])):
            at = chance.randrange(len(text))
            text = text[:at] + chance.choice(tags) + text[at + chance.choice([0, 8]) :]
        yield text if chance.random() < 0.7 else text[: chance.randrange(len(text))]


def test_trace_files(server, open_window, tmp_path):
    seed = random.randrange(1 << 30)
    print("seed", seed)
    texts = [text for text in random_texts(random.Random(seed)) if text.strip()]
    file = tmp_path / "traces.jsonl"
    file.write_text("".join(json.dumps({"id": f"t{i}", "completion": text}) + "\n" for i, text in enumerate(texts)))
    window = open_window(f"{server.url}/#trace")
    page = window.page
    page.get_by_label("Trace file").set_input_files(file)
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(len(texts), timeout=30_000)
    for row, expected in zip(page.eval_on_selector_all("tbody tr", "rows => rows.map(row => [...row.children].map(cell => cell.innerText))"), inspected(file)):
        names = ["tokens", "critical_path_tokens", None, "steps", "blocks", "paths", "max_width", "max_depth", "malformed"]
        assert row[0] == expected["id"]
        for cell, name in zip(row[1:], names):
            assert name is None or int(cell.replace(",", "")) == expected[name], (row, expected)
    if TRACES:
        texts += [json.loads(line)["completion"] for line in TRACES.read_text().splitlines()[:4]]
    # The tree that the page makes of a report holds the whole text, and each place is where the report says.
    wrong = page.evaluate("""async (texts) => {
      const { Tree } = await import('./page/tree.js');
      const { AnswerView } = await import('./page/lanes.js');
      const { post } = await import('./page/api.js');
      const wrong = [];
      for (const text of texts) {
        const report = await post('inspect', { text });
        const tree = Tree.fromReport(report);
        const again = Tree.fromJSON(JSON.parse(JSON.stringify(tree)));
        if (JSON.stringify(again) !== JSON.stringify(tree) || again.text() !== tree.text()) wrong.push(['saved', text]);
        if (tree.text() !== text) wrong.push(['text', text, tree.text()]);
        if (tree.tokens !== report.tokens || tree.counts().steps !== report.steps) wrong.push(['counts', text]);
        const view = new AnswerView(tree, { keepOpen: true });
        view.finish();
        await new Promise(requestAnimationFrame);
        let marks = 0;
        for (const { branch } of tree.inOrder()) {
          for (const run of branch.runs) {
            marks += run.marks.length;
            for (const mark of run.marks) {
              if (run.text.slice(mark.offset, mark.offset + mark.text.length) !== mark.text) wrong.push(['mark', text]);
            }
          }
        }
        if (marks !== report.malformed_at.length) wrong.push(['marks', text]);
      }
      return wrong;
    }""", texts)
    assert not wrong
    page.get_by_role("button", name="Examples").click()
    expect(rows).to_have_count(4)
    expect(rows.first).to_be_visible()
    window.shot("trace")
    accessibility(window, "trace")


def drop(page, name, content):
    data = page.evaluate_handle("""([name, content]) => {
      const data = new DataTransfer();
      data.items.add(new File([content], name));
      return data;
    }""", [name, content])
    page.dispatch_event(".trace", "drop", {"dataTransfer": data})


def test_dropped_files(server, open_window):
    window = open_window(f"{server.url}/#trace")
    page = window.page
    rows = page.locator("tbody tr")
    # A text with a token where none belongs: counted, listed with its place, and marked in the tree.
    goal = "<Goal>\n<Outline>\n1: a\n</Outline>\n<Outline>\n2: b\n</Outline>\n</Goal>\n"
    paths = "<Path>\n1: one </Goal> more\n</Path>\n<Path>\n2: two\n</Path>\n"
    text = f"<Think>\n<Parallel>\n{goal}{paths}<Conclusion>\nc\n</Conclusion>\n</Parallel>\n</Think>\nend"
    drop(page, "answer.txt", text)
    expect(rows).to_have_count(1)
    expect(rows.locator("td.bad")).to_have_text("1")
    page.locator(".malformed-list summary").click()
    expect(page.locator(".malformed-list li")).to_have_text("</Goal> line 12, column 8")
    page.get_by_role("button", name="Columns").click()
    expect(page.locator("[data-id='1.1'] mark.malformed")).to_have_text("</Goal>")
    expect(page.locator("[data-id='1.1'] .body .line")).to_have_text("one </Goal> more")
    window.shot("malformed")
    accessibility(window, "malformed")
    page.get_by_role("button", name="Text").click()
    assert page.locator(".raw-text").text_content() == text
    # JSON lines, with the names that they give.
    lines = [{"id": "first", "completion": text}, {"completion": "nothing parallel"}]
    drop(page, "two.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    expect(rows).to_have_count(2)
    assert rows.locator("th").all_inner_texts() == ["first", "two.jsonl:2"]
    # A line that is none: where.
    drop(page, "bad.jsonl", json.dumps(lines[0]) + "\nnonsense\n")
    expect(page.get_by_role("alert")).to_contain_text('bad.jsonl:2 is not a JSON object with a string "completion"')
    drop(page, "empty.txt", " \n")
    expect(page.get_by_role("alert")).to_contain_text("there is no text to look at")
