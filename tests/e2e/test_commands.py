"""The commands beside `serve`, as a person runs them: chat into a pipe and on a terminal, inspect, bench."""

import json
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from fcntl import ioctl

import pytest
from running import BINARY, MODEL, ROOT, free_ports, wait_until

# A held-out question that the model solves in parallel; its answer follows from it.
PAIRS = [(7972, 16), (971, 69), (294, 49), (653, 26), (624, 51), (5628, 78)]
QUESTION = (
    "A question: Give the results of 7972 times 16, 971 times 69, 294 times 49, 653 times 26, 624 times 51 and "
    "5628 times 78."
)
FIGURES = re.compile(
    r"^(\d+) tokens · critical path (\d+) · ([\d.]+) x · (\d+) steps · ([\d.]+) s · (\d+) tokens/s$", re.MULTILINE
)
SHARED = ROOT.parent / "shared"

pytestmark = pytest.mark.skipif(not BINARY.exists(), reason=f"{BINARY} is not built")


def run(*arguments, text=None, timeout=60, **environment):
    inherited = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    return subprocess.run(
        [BINARY, *map(str, arguments)],
        input=text,
        stdin=None if text is not None else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=inherited | environment,
    )


class Terminal:
    """A command on a pseudo-terminal of 100 columns and 40 rows."""

    def __init__(self, *arguments, colors=False):
        self.pid, self.screen = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm"
            if not colors:
                os.environ["NO_COLOR"] = "1"
            os.execv(BINARY, [str(BINARY), *map(str, arguments)])
        ioctl(self.screen, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        self.shown = ""

    def read_until(self, wanted, seconds=30):
        """Until `wanted` (a regular expression) is shown; "" waits for the end. Everything shown so far."""
        end = time.monotonic() + seconds
        while not (wanted and re.search(wanted, self.shown, re.MULTILINE)):
            assert time.monotonic() < end, f"{wanted!r} did not come; shown:\n{self.shown}"
            if not select.select([self.screen], [], [], 0.1)[0]:
                continue
            try:
                part = os.read(self.screen, 65536)
            except OSError:  # Linux says so at the end
                part = b""
            if not part:
                assert not wanted, f"{wanted!r} did not come; shown:\n{self.shown}"
                break
            self.shown += part.decode(errors="replace").replace("\r\n", "\n")
        return self.shown

    def type(self, text):
        os.write(self.screen, text.encode())

    def exit_code(self):
        self.read_until("")
        os.close(self.screen)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def screen_after(shown):
    """What stands on a terminal that obeys the sequences that chat uses without colours: up, and erase below."""
    lines, row = [""], 0
    for part in re.findall(r"\x1b\[\d*[AJ]|\r|\n|[^\x1b\r\n]+", shown):
        if part == "\n":
            row += 1
            lines += [""] if row == len(lines) else []
        elif part == "\x1b[J":
            lines[row:] = [""]
        elif part.startswith("\x1b"):
            row -= int(part[2:-1])
        elif part != "\r":
            lines[row] += part
    return "\n".join(lines)


def answer_of(server, question=QUESTION, **options):
    body = {"messages": [{"role": "user", "content": question}], "temperature": 0} | options
    done = subprocess.run(
        ["curl", "-sS", f"{server.url}/v1/chat/completions", "-H", "Content-Type: application/json", "-d", "@-"],
        input=json.dumps(body),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_help_of_every_command():
    for command in ("serve", "chat", "inspect", "replay", "bench", "bench decode", "bench request"):
        done = run(*command.split(), "--help")
        assert done.returncode == 0, command
        assert "Usage: multiverse" in done.stdout
        assert done.stderr == ""
        assert command.split()[0] in run("--help").stdout


def test_chat_into_a_pipe_is_the_answer_and_nothing_else(server):
    expected = answer_of(server)
    done = run("chat", "--url", server.url, "--temperature", "0", QUESTION)
    assert done.returncode == 0, done.stderr
    assert done.stdout == expected["choices"][0]["message"]["content"]
    for left, right in PAIRS:
        assert str(left * right) in done.stdout
    figures = FIGURES.match(done.stderr)
    usage = expected["usage"]
    parallel = usage["completion_tokens_details"]["parallel"]
    assert figures, done.stderr
    assert int(figures[1]) == usage["completion_tokens"]
    assert int(figures[2]) == parallel["critical_path_tokens"]
    assert int(figures[4]) == parallel["steps"]


def test_chat_with_the_model_inside(server):
    done = run("chat", "--temperature", "0", QUESTION)
    assert done.returncode == 0, done.stderr
    assert done.stdout == answer_of(server)["choices"][0]["message"]["content"]
    assert FIGURES.fullmatch(done.stderr.strip()), done.stderr  # no log lines


def test_chat_options_reach_the_server(server):
    url = ["chat", "--url", f"{server.url}/v1/", "--temperature", "0"]
    off = run(*url, "--mode", "off", "--max-tokens", "20", QUESTION)
    assert "1.00 x" in off.stderr and off.stderr.startswith("20 tokens")
    assert "token limit" in off.stderr
    asked = QUESTION + " Think step by step before answering."
    thought = run(*url, "--think=sequential", QUESTION)
    assert thought.stdout == answer_of(server, asked)["choices"][0]["message"]["content"]
    drawn = [run("chat", "--url", server.url, "--temperature", "1.5", "--seed", "7", QUESTION).stdout for _ in range(2)]
    assert drawn[0] and drawn[0] == drawn[1]


def test_chat_keeps_the_conversation(server):
    first = QUESTION
    second = "What are the greatest common divisor of 36 and 540; the greatest common divisor of 9 and 6?"
    done = run("chat", "--url", server.url, "--temperature", "0", text=f"{first}\n\n{second}")
    assert done.returncode == 0, done.stderr
    one = answer_of(server)["choices"][0]["message"]["content"]
    messages = [
        {"role": "user", "content": first},
        {"role": "assistant", "content": one},
        {"role": "user", "content": second},
    ]
    two = answer_of(server, messages=messages)["choices"][0]["message"]["content"]
    assert done.stdout == f"{one}\n{two}\n"


def test_chat_on_a_terminal_shows_the_paths(server):
    terminal = Terminal("chat", "--url", server.url, "--temperature", "0", QUESTION)
    shown = terminal.read_until(FIGURES.pattern)
    assert terminal.exit_code() == 0
    # While they ran: a line for each path, drawn anew in place.
    assert "\x1b[6A\x1b[J" in shown
    while_running = shown[: shown.index("\x1b[6A")]
    for path in range(1, 7):
        assert re.search(rf"^  [▸✓] 1\.{path}  {path}: +\d+ tokens  ", while_running, re.MULTILINE), while_running
    assert "▸" in while_running
    # What stays: every path once and with a tick, then the conclusion below.
    final = screen_after(shown)
    folded = re.findall(r"^  ✓ 1\.(\d)  \1: +\d+ tokens  .*R\1=(\d+)$", final, re.MULTILINE)
    assert [int(result) for _, result in folded] == [left * right for left, right in PAIRS], final
    assert "▸" not in final and "<Path>" not in final
    answer = answer_of(server)["choices"][0]["message"]["content"]
    conclusion = answer[answer.index("<Conclusion>") :]
    assert final.index(conclusion) > final.rindex("✓")
    assert final.startswith(answer[: answer.index("<Path>")])
    assert FIGURES.search(final[final.index(conclusion) :])
    assert max(map(len, final.split("\n"))) < 100


def test_chat_on_a_terminal_converses(server):
    terminal = Terminal("chat", "--url", server.url, "--temperature", "0", colors=True)
    terminal.read_until(r"^> $")
    terminal.type(QUESTION + "\n")
    terminal.read_until(r"tokens/s\x1b\[0m\n> $")
    terminal.type("\x04")
    assert terminal.exit_code() == 0


def wait_for_running(server, wanted, seconds=10):
    def found():
        page = subprocess.run(["curl", "-sS", f"{server.url}/metrics"], capture_output=True, text=True).stdout
        return re.search(rf"^multiverse_requests_running\{{.*\}} {wanted}$", page, re.MULTILINE)

    return wait_until(found, seconds)


def test_ctrl_c_ends_the_answer_and_the_request(fresh_server):
    # Random weights repeat themselves up to the end of the context: seconds of work.
    server = fresh_server("--weights", "random")
    terminal = Terminal("chat", "--url", server.url, "--mode", "off", "--temperature", "0", QUESTION)
    assert wait_for_running(server, 1)
    terminal.type("\x03")
    assert terminal.exit_code() == 130
    assert "tokens/s" not in terminal.shown
    assert wait_for_running(server, 0, seconds=2)


def test_ctrl_c_while_nothing_is_asked(server):
    terminal = Terminal("chat", "--url", server.url)
    terminal.read_until(r"^> $")
    terminal.type("\x03")
    assert terminal.exit_code() == 130


def test_chat_nobody_listens():
    (port,) = free_ports(1)
    done = run("chat", "--url", f"http://127.0.0.1:{port}", "1+1")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f"multiverse chat: can't connect to http://127.0.0.1:{port}: is a server running there?\n"


@pytest.mark.parametrize(
    "options, said",
    [
        (["--url", "https://127.0.0.1:1", "x"], "https"),
        (["--url", "http://127.0.0.1:nine", "x"], "port"),
        (["--no-such-option", "x"], "--no-such-option"),
        (["--mode", "sideways", "x"], "parallel, serial, off"),
        (["--think"], "needs a value"),
        (["--temperature", "warm", "x"], "warm"),
        (["--url", "http://x", "--model", "y", "z"], "one of them"),
        (["two", "words"], "quotes"),
        ([""], "empty"),
    ],
)
def test_chat_wrong_arguments(options, said):
    done = run("chat", *options)
    assert done.returncode == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert len(done.stderr.strip().split("\n")) == 1


def test_chat_shows_the_servers_errors(server):
    done = run("chat", "--url", server.url, "--temperature", "3", QUESTION)
    assert done.returncode == 1
    assert "the server answered 400" in done.stderr and "temperature" in done.stderr
    lost = run("chat", "--url", f"{server.url}/elsewhere", QUESTION)
    assert lost.returncode == 1
    assert "404" in lost.stderr and "--url" in lost.stderr


def test_chat_needs_the_servers_key(fresh_server, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("right\n")
    server = fresh_server("--api-key-file", str(keys))
    arguments = ["chat", "--url", server.url, "--max-tokens", "3"]
    refused = run(*arguments, "--api-key", "wrong", "1+1")
    assert refused.returncode == 1
    assert "401" in refused.stderr and "OPENAI_API_KEY" in refused.stderr
    assert run(*arguments, "--api-key", "right", "1+1").returncode == 0
    assert run(*arguments, "1+1", OPENAI_API_KEY="right").returncode == 0


def test_chat_without_a_model_folder():
    done = run("chat", "--model", "/nowhere", "1+1")
    assert done.returncode == 1
    assert "/nowhere" in done.stderr


def model_with(folder, **changes):
    """The model that ships, with other fields in tokenizer_config.json (None removes one)."""
    folder.mkdir()
    for file in MODEL.iterdir():
        (folder / file.name).symlink_to(file)
    config = json.loads((MODEL / "tokenizer_config.json").read_text()) | changes
    (folder / "tokenizer_config.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return folder


def test_a_template_that_cannot_be_used_fails_the_start(tmp_path):
    broken = model_with(tmp_path / "broken", chat_template="a\n{% macro f() %}{% endmacro %}{% import 'x' as y %}")
    done = run("serve", "--model", broken, "--port", "0", timeout=20)
    assert done.returncode == 1
    assert "template" in done.stderr and "line 2" in done.stderr and str(broken) in done.stderr
    bare = model_with(tmp_path / "bare", chat_template=None)
    chat = run("chat", "--model", bare, "1+1")
    assert chat.returncode == 1
    assert "no chat template" in chat.stderr


@pytest.fixture(scope="module")
def structured(server):
    answer = answer_of(server)
    return answer["choices"][0]["message"]["content"], answer["usage"]


def test_inspect_a_text(structured, tmp_path):
    text, usage = structured
    parallel = usage["completion_tokens_details"]["parallel"]
    file = tmp_path / "answer.txt"
    file.write_text(text)
    done = run("inspect", file)
    assert done.returncode == 0, done.stderr
    assert f"critical path {parallel['critical_path_tokens'] - 1} " in done.stdout  # the end token is not in the text
    assert f"1 blocks fork into {len(PAIRS)} paths" in done.stdout
    for path in range(1, len(PAIRS) + 1):
        assert re.search(rf"^  [┌│] 1\.{path} +\d+ tokens  ", done.stdout, re.MULTILINE)
    assert "malformed:" not in done.stdout
    assert run("inspect", "-", text=text).stdout.split(":", 1)[1] == done.stdout.split(":", 1)[1]


def test_inspect_says_where_the_grammar_breaks(structured, tmp_path):
    file = tmp_path / "broken.txt"
    file.write_text("first line\nab</Path>" + structured[0])
    done = run("inspect", file)
    assert "malformed: </Path>" in done.stdout and "line 2, column 3" in done.stdout


def test_inspect_json_lines(structured, tmp_path):
    text, usage = structured
    file = tmp_path / "answers.jsonl"
    file.write_text(json.dumps({"id": "one", "completion": text}) + "\n" + json.dumps({"completion": "plain"}) + "\n")
    done = run("inspect", "--json", file)
    assert done.returncode == 0, done.stderr
    one, two = map(json.loads, done.stdout.splitlines())
    parallel = usage["completion_tokens_details"]["parallel"]
    assert one["id"] == "one"
    assert one["tokens"] == usage["completion_tokens"] - 1
    assert one["critical_path_tokens"] == parallel["critical_path_tokens"] - 1
    for name in ("blocks", "paths", "max_width", "max_depth", "malformed"):
        assert one[name] == parallel[name], name
    assert [(path["id"], path["label"], path["ended"]) for path in one["tree"]] == [
        (f"1.{path}", str(path), True) for path in range(1, len(PAIRS) + 1)
    ]
    assert one["malformed_at"] == []
    assert (two["id"], two["blocks"], two["tree"]) == (f"{file}:2", 0, [])


def test_inspect_wrong_arguments(tmp_path):
    assert run("inspect").returncode == 2
    assert run("inspect", "--fly", "x").returncode == 2
    missing = run("inspect", tmp_path / "nothing")
    assert missing.returncode == 1
    assert "nothing" in missing.stderr
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"completion": "x"}\n{"other": 1}\n')
    done = run("inspect", broken)
    assert done.returncode == 1
    assert f"{broken}:2" in done.stderr


def test_inspect_real_traces():
    traces, trees = SHARED / "traces/aime24.jsonl", SHARED / "traces/aime24_trees.jsonl"
    tokenizer = SHARED / "tokenizers/multiverse-32b"
    for needed in (traces, trees, tokenizer / "tokenizer.json"):
        if not needed.exists():
            pytest.skip(f"{needed} is not here: real outputs of Multiverse-32B are not part of the repository")
    done = run("inspect", "--json", "--tokenizer", tokenizer, traces, timeout=300)
    assert done.returncode == 0, done.stderr
    got = [json.loads(line) for line in done.stdout.splitlines()]
    expected = [json.loads(line) for line in trees.read_text().splitlines()]
    assert len(got) == len(expected) == 30
    for tree, wanted in zip(got, expected):
        assert {name: tree[name] for name in wanted} == wanted, tree["id"]


def test_bench_request_prints_its_figure_beside_the_wanted_one():
    done = run("bench", "request", "--runs", "5", "--tokens", "1000")
    assert done.returncode == 0, done.stderr
    tokens = int(re.search(r"(\d+) prompt tokens", done.stdout)[1])
    assert 900 < tokens < 1100
    for part in ("parse JSON", "render", "tokenise", "all"):
        assert re.search(rf"^  {part} +median +[\d.]+ ms +p99 +[\d.]+ ms", done.stdout, re.MULTILINE), done.stdout
    assert "wanted <= 5.0 ms" in done.stdout
    assert run("bench", "request", "--tokens", "few").returncode == 2


def test_bench_decode_prints_its_figure_beside_the_floor():
    done = run("bench", "decode", "--rows", "1", "--steps", "3")
    assert done.returncode == 0, done.stderr
    assert re.search(r"[\d.]+ ms a step .* floor +[\d.]+ ms", done.stdout), done.stdout
    assert run("bench", "fly").returncode == 2


def test_bench_http_prints_its_figures_beside_the_wanted_ones():
    small = ["--streams", "20", "--seconds", "1", "--tokens", "200", "--idle", "20"]
    done = subprocess.run([BINARY, "bench", "http", *small], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "400 of 400 tokens came" in done.stdout
    for part, wanted in [("streams", "5 ms"), ("overhead", "5 ms"), ("rejection", "5000"), ("idle", "20 ms")]:
        assert re.search(rf"^  {part} .*\d.*wanted .. {wanted}", done.stdout, re.M), done.stdout
    wrong = subprocess.run([BINARY, "bench", "http", "--streams", "many"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "'many'" in wrong.stderr
