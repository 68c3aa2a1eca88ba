"""How far a run is, and an honest estimate of what is left."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import TextIO


class Progress:
    """The mean time of an answer is all the time spent on answers, unfinished ones too, over the number that finished: short
    answers finish first, so that the finished ones alone would promise too much. The range is the mean's 95 % interval."""

    def __init__(self, total: int, done: int, concurrency: int, clock: Callable[[], float] = time.monotonic):
        self.total, self.done, self._concurrency, self._clock = total, done, concurrency, clock
        self.right = 0
        self._finished = 0  # in this run
        self._spent = 0.0  # seconds on them
        self._running: dict[object, float] = {}

    def begin(self, job: object) -> None:
        self._running[job] = self._clock()

    def end(self, job: object) -> None:
        self._spent += self._clock() - self._running.pop(job)
        self._finished += 1
        self.done += 1

    def give_up(self, job: object) -> None:
        self._running.pop(job, None)

    def seconds_left(self) -> tuple[float, float, float] | None:
        """Estimate, low, high; None before three answers."""
        if self._finished < 3:
            return None
        now = self._clock()
        mean = (self._spent + sum(now - begun for begun in self._running.values())) / self._finished
        left = self.total - self.done
        estimate = mean * left / max(1, min(self._concurrency, left))
        spread = math.exp(1.96 / math.sqrt(self._finished))
        return estimate, estimate / spread, estimate * spread

    def line(self) -> str:
        left = self.seconds_left()
        if self.done == self.total:
            text = "done"
        elif left is None:
            text = "time left: not known yet"
        else:
            text = f"about {duration(left[0])} left ({duration(left[1])} to {duration(left[2])})"
        width = 24
        filled = width * self.done // max(1, self.total)
        return f"[{'#' * filled}{'.' * (width - filled)}] {self.done}/{self.total}, {len(self._running)} running, {text}"


def duration(seconds: float) -> str:
    seconds = round(seconds)
    if seconds < 90:
        return f"{seconds} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Display:
    """Writes the line in place on a terminal, every 30 seconds elsewhere."""

    def __init__(self, stream: TextIO = sys.stderr, clock: Callable[[], float] = time.monotonic):
        self._stream, self._clock = stream, clock
        self._last = -math.inf

    def show(self, line: str, last: bool = False) -> None:
        terminal = self._stream.isatty()
        if not last and self._clock() - self._last < (0.2 if terminal else 30):
            return
        self._last = self._clock()
        self._stream.write(f"\r\x1b[K{line}" + ("\n" if last else "") if terminal else line + "\n")
        self._stream.flush()
