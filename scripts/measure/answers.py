"""What a text gives as its answer, and whether that equals the expected one. Mathematical equality is math-verify's, in a
process of its own with limits on time and memory: a model may write 10^(10^10)."""

from __future__ import annotations

import logging
import multiprocessing
import re
import resource
import threading

MAX_ANSWER = 2_000  # characters; longer ones are not compared
_BOXED = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
_ANCHOR = re.compile(r"(?:final\s+answer|answer)\s*(?:is\s*:?|:|=)\s*", re.IGNORECASE)
_END_OF_THINKING = re.compile(r"</think>", re.IGNORECASE)
_LETTER = re.compile(r"(?<![A-Za-z\\])([A-J])(?![A-Za-z])")


def extract(text: str, kind: str) -> str | None:
    """The text's last answer, preferably from what follows the thinking; None where it states none. `exact` wants a last line
    that starts with "Answer:"; the others the last \\boxed{…}, or else the last "answer is …" or "Answer: …"."""
    if kind == "exact":
        lines = text.strip().splitlines()
        return lines[-1].removeprefix("Answer:").strip() if lines and lines[-1].startswith("Answer:") else None
    thinking = list(_END_OF_THINKING.finditer(text))
    parts = [text[thinking[-1].end() :], text[: thinking[-1].start()]] if thinking else [text]
    for part in parts:
        answer = _last_boxed(part) or _last_stated(part)
        if answer:
            return answer
    return None


def same(answer: str | None, expected: str, kind: str) -> bool:
    """May take long or fail for hostile answers: call it through a Checker."""
    if answer is None or len(answer) > MAX_ANSWER:
        return False
    if kind == "exact":
        return answer == expected
    if kind == "choice":
        return _letter(answer) == expected
    return _plain(answer) == _plain(expected) or _mathematically_equal(answer, expected)


def _last_boxed(text: str) -> str | None:
    for match in reversed(list(_BOXED.finditer(text))):
        rest = text[match.end() :].lstrip()
        if rest.startswith("{"):
            content = _braced(rest)
            if content is not None and content.strip():
                return content.strip()
        elif word := re.match(r"[^\s$\\.,;]+", rest):  # \boxed 5
            return word[0]
    return None


def _braced(text: str) -> str | None:
    """What stands between the brace that `text` starts with and its partner; None where there is no partner."""
    depth, i = 0, 0
    while i < len(text):
        if text[i] == "\\":
            i += 2
            continue
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return text[1:i]
        i += 1
    return None


def _last_stated(text: str) -> str | None:
    for match in reversed(list(_ANCHOR.finditer(text))):
        line = text[match.end() :].split("\n", 1)[0].strip().strip("*").strip()
        line = re.sub(r"^(?:\\\(|\\\[|\${1,2})\s*(.*?)\s*(?:\\\)|\\\]|\${1,2})[.\s]*$", r"\1", line)
        line = line.rstrip(". ").strip("\"“”'` ").rstrip(". ")
        if line:
            return line
    return None


def _plain(text: str) -> str:
    text = re.sub(r"\\(?:left|right|,|!|;|displaystyle)(?![A-Za-z])|\\ |[\s$]", "", text)
    text = re.sub(r"\\[dt]frac(?![A-Za-z])", r"\\frac", text)
    return text.rstrip(".")


def _letter(answer: str) -> str | None:
    """The one letter of a choice; None where the answer names several."""
    letters = set(_LETTER.findall(re.sub(r"\\text(?:bf|rm)?|\\mathrm|\\mathbf", " ", answer.strip())))
    if len(letters) == 1:
        return letters.pop()
    first = re.match(r"\W*([A-J])\W", answer + " ")  # "(B) the energy of A": the letter that it begins with
    return first[1] if first and re.match(r"\W*\(?[A-J][).:]", answer) else None


def _mathematically_equal(answer: str, expected: str) -> bool:
    from math_verify import LatexExtractionConfig, parse, verify  # slow to load, so only where it is needed

    config = [LatexExtractionConfig(boxed_match_priority=0)]
    gold, target = (parse(f"\\boxed{{{text}}}", extraction_config=config, parsing_timeout=None) for text in (expected, answer))
    return bool(gold and target and verify(gold, target, timeout_seconds=None))


def _serve(pipe, memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    logging.disable(logging.CRITICAL)  # math-verify warns that it has no time limit of its own: this process has one
    while True:
        try:
            answer, expected, kind = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(same(answer, expected, kind))
        except Exception:  # noqa: BLE001: whatever the libraries raise on a model's text, the text is not the answer
            pipe.send(False)


class Checker:
    """Compares answers in a child process that is killed when one takes longer than `seconds`. Threads may share it."""

    def __init__(self, seconds: float = 10.0, memory_bytes: int = 2 << 30):
        self._seconds, self._memory = seconds, memory_bytes
        self._lock = threading.Lock()
        self._process = None
        self.timed_out = 0

    def same(self, answer: str | None, expected: str, kind: str) -> bool:
        if kind != "math":  # cheap and safe
            return same(answer, expected, kind)
        if answer is None or len(answer) > MAX_ANSWER:
            return False
        with self._lock:
            if self._process is None or not self._process.is_alive():
                self._start()
            try:
                self._pipe.send((answer, expected, kind))
                if self._pipe.poll(self._seconds):
                    return self._pipe.recv()
                self.timed_out += 1
            except (EOFError, OSError):  # the child ended: out of memory
                pass
            self._stop()
            return False

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._memory), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.send(("1", "2", "math"))  # loads the libraries, on no answer's time
        self._pipe.recv()

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None
