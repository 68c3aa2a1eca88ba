"""A fleet of replicas, simulated: requests with trees arrive, are routed, decode together, and replicas fail and restart.

A replica is a decode loop: every step advances each running request by one step of its tree, and takes as long as the measured step
with so many rows that reads so many tokens' keys and values. Between two changes of its rows (an arrival, the next phase of a tree, an end) nothing happens that has to be
simulated, so that a thousand replicas are cheap. Times are seconds, lengths tokens."""

from __future__ import annotations

import bisect
import hashlib
import heapq
import itertools
import math
import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class StepTimes:
    """Seconds of a decode step by its rows, linear between the measured counts and beyond the last two, and by the tokens that it reads:
    a request's once, however many of its paths see them."""

    rows: tuple[int, ...]
    seconds: tuple[float, ...]
    prefill_token: float = 0.0  # a prompt's token more in a step
    read_token: float = 0.0  # a token more of the running requests' contexts

    def __post_init__(self):
        if len(self.rows) < 2 or list(self.rows) != sorted(set(self.rows)) or len(self.rows) != len(self.seconds):
            raise ValueError(f"step times need at least two rising row counts with a time each, got rows {self.rows} and {len(self.seconds)} times")
        if min(self.seconds) <= 0 or self.prefill_token < 0 or self.read_token < 0:
            raise ValueError(f"step times must be above 0, got {self.seconds}, {self.prefill_token} a prefilled and {self.read_token} a read token")

    def step(self, rows: int, tokens: float = 0.0) -> float:
        i = min(max(bisect.bisect_right(self.rows, rows), 1), len(self.rows) - 1)
        (a, b), (ta, tb) = self.rows[i - 1 : i + 1], self.seconds[i - 1 : i + 1]
        return max(ta + (tb - ta) * (rows - a) / (b - a), min(self.seconds)) + self.read_token * tokens


@dataclass(frozen=True)
class Replica:
    """What one replica can do."""

    times: StepTimes
    max_rows: int = 512
    cache_tokens: int = 1_000_000
    prefix_tokens: int = 200_000  # of the cache, kept for prefixes to be found again
    start_seconds: float = 60.0
    max_queue: int = 1_000_000  # waiting requests beyond which it refuses


@dataclass
class Work:
    """One request. `phases`: runs of (steps, rows)."""

    arrival: float
    prompt: int
    phases: tuple[tuple[int, int], ...]
    prefix: int = 0  # which prompt it begins with
    prefix_tokens: int = 0  # how long that is
    # Set by the simulation:
    replica: int = -1
    first: float | None = None  # when its first token was drawn
    end: float | None = None
    tries: int = 0
    refused: bool = False
    prefilled: int = 0  # tokens of all tries

    @property
    def steps(self) -> int:
        return sum(steps for steps, _ in self.phases)

    @property
    def tokens(self) -> int:
        return sum(steps * rows for steps, rows in self.phases)


@dataclass(eq=False)
class _Running:
    work: Work
    phase: int
    until: int  # the step count at which the phase ends
    rows: int
    read: float  # tokens of its context, in the middle of the phase
    context: int  # at the phase's end


def _begin_phase(work: Work, phase: int, begin: int, context: int) -> _Running:
    steps, rows = work.phases[phase]
    return _Running(work, phase, begin + steps, rows, context + steps * rows / 2, context + steps * rows)


class _Replica:
    """State of one replica. Its time is that of the last change; steps since then follow from its rows."""

    def __init__(self, spec: Replica):
        self.spec = spec
        self.up, self.draining = True, False
        self.epoch = 0  # events of an older one are void
        self.reset(0.0)
        self.busy = self.row_seconds = self.prefill_seconds = 0.0
        self.generated = 0

    def reset(self, now: float) -> None:
        self.now, self.steps = now, 0
        self.rows, self.held = 0, 0  # rows that decode, cache tokens spoken for
        self.read = 0.0  # tokens that a step reads
        self.heap: list[tuple[int, int, _Running]] = []
        self.queue: list[Work] = []
        self.running: dict[int, _Running] = {}
        self.prefixes: OrderedDict[int, int] = OrderedDict()  # their tokens, least recently used first
        self.prefix_tokens = 0
        self.outstanding = 0

    def advance(self, now: float) -> None:
        """Makes the steps until `now`; one that is under way then is finished, so that the replica may be ahead of `now`."""
        if self.rows and now > self.now:
            step = self.step()
            limit = self.heap[0][0] - self.steps
            made = min(limit, math.ceil((now - self.now) / step - 1e-9))
            self.steps += made
            self._spend(made * step)
            self.generated += made * self.rows
            self.now += made * step
        if not self.rows:
            self.now = max(self.now, now)

    def _spend(self, seconds: float) -> None:
        self.busy += seconds
        self.row_seconds += seconds * self.rows

    def next_change(self) -> float | None:
        if not self.heap:
            return None
        return self.now + (self.heap[0][0] - self.steps) * self.step()

    def step(self) -> float:
        return self.spec.times.step(self.rows, self.read)

    def start(self, running: _Running, order: int) -> None:
        self.rows += running.rows
        self.read += running.read
        self.running[id(running.work)] = running
        heapq.heappush(self.heap, (running.until, order, running))

    def finish(self, running: _Running) -> None:
        """A phase, whose entry is out of the heap."""
        self.rows -= running.rows
        self.read = self.read - running.read if self.rows else 0.0  # no rounding is left over
        del self.running[id(running.work)]


Router = Callable[["Fleet", Work], int | None]


def random_replica(fleet: Fleet, work: Work) -> int | None:
    up = fleet.available
    return fleet.random.choice(up) if up else None


def least_loaded(fleet: Fleet, work: Work) -> int | None:
    """The fewest unfinished requests, as a balancer in front sees them."""
    return min(fleet.available, key=lambda i: (fleet.replicas[i].outstanding, fleet.random.random()), default=None)


def prefix_affine(fleet: Fleet, work: Work, slack: float = 1.25) -> int | None:
    """Rendezvous hashing by prefix over the replicas whose load is at most `slack` times the mean, so that one popular prefix can't
    drown its replica."""
    up = fleet.available
    if not up:
        return None
    limit = slack * (sum(fleet.replicas[i].outstanding for i in up) + 1) / len(up)
    for replica in fleet.preference(work.prefix):
        if replica in fleet.up_set and fleet.replicas[replica].outstanding <= limit:
            return replica
    return least_loaded(fleet, work)


ROUTERS: dict[str, Router] = {"random": random_replica, "least-loaded": least_loaded, "prefix-affine": prefix_affine}


@dataclass
class Trouble:
    """Failures at random and a rolling restart. A failed replica loses its requests; the router finds out after `detect_seconds`
    and sends them elsewhere. A restarted one finishes what it has."""

    mean_seconds_between_failures: float | None = None  # of one replica
    detect_seconds: float = 5.0
    rolling_restart_at: float | None = None
    at_once: int = 1


@dataclass
class Outcome:
    works: list[Work]
    replicas: list[_Replica]
    seconds: float
    failures: int = 0
    restarts: int = 0
    lost_tokens: int = 0  # generated and thrown away with a failed replica
    queue_peak: int = 0


class Fleet:
    def __init__(self, count: int, spec: Replica, router: str, seed: int = 0):
        self.replicas = [_Replica(spec) for _ in range(count)]
        self.random = random.Random(seed)
        self._route = ROUTERS[router]
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()
        self._preferences: dict[int, list[int]] = {}
        self._orphans: list[Work] = []  # nobody is up
        self._refresh()

    def preference(self, prefix: int) -> list[int]:
        if prefix not in self._preferences:
            weight = lambda i: hashlib.blake2b(f"{prefix} {i}".encode(), digest_size=8).digest()  # noqa: E731
            self._preferences[prefix] = sorted(range(len(self.replicas)), key=weight)
        return self._preferences[prefix]

    def run(self, works: Sequence[Work], trouble: Trouble = Trouble()) -> Outcome:
        """Until every request is answered or refused."""
        self.out = Outcome(list(works), self.replicas, 0.0)
        self._trouble = trouble
        self._left = len(self.out.works)
        for work in self.out.works:
            self._at(work.arrival, lambda now, work=work: self._send(now, work))
        if trouble.mean_seconds_between_failures:
            for index in range(len(self.replicas)):
                self._plan_failure(0.0, index)
        if trouble.rolling_restart_at is not None:
            self._to_restart = list(range(len(self.replicas)))
            for _ in range(trouble.at_once):
                self._at(trouble.rolling_restart_at, self._drain_next)
        while self._left and self._events:
            now, _, act = heapq.heappop(self._events)
            self.out.seconds = now
            act(now)
        return self.out

    def _at(self, time: float, act: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (time, next(self._order), act))

    def _refresh(self) -> None:
        self.available = [i for i, r in enumerate(self.replicas) if r.up and not r.draining]
        self.up_set = set(self.available)

    # Requests.

    def _send(self, now: float, work: Work) -> None:
        index = self._route(self, work)
        if index is None:
            self._orphans.append(work)
            return
        replica = self.replicas[index]
        if len(replica.queue) >= replica.spec.max_queue:
            self._refuse(work)
            return
        work.replica, work.tries = index, work.tries + 1
        replica.outstanding += 1
        replica.queue.append(work)
        self.out.queue_peak = max(self.out.queue_peak, len(replica.queue))
        replica.advance(now)
        self._admit(index, now)

    def _refuse(self, work: Work) -> None:
        work.refused = True
        self._left -= 1

    def _admit(self, index: int, now: float) -> None:
        """Takes what fits from the queue, in order; the prefill makes the replica's next step longer."""
        replica = self.replicas[index]
        while replica.queue:
            work = replica.queue[0]
            need = work.prompt + work.tokens
            spec = replica.spec
            if need > spec.cache_tokens - spec.prefix_tokens:
                replica.queue.pop(0)
                replica.outstanding -= 1
                self._refuse(work)
                continue
            widest = max(rows for _, rows in work.phases)
            if replica.held + need > spec.cache_tokens - spec.prefix_tokens or replica.rows + min(widest, spec.max_rows) > spec.max_rows:
                break
            replica.queue.pop(0)
            computed = work.prompt - self._found(replica, work)
            work.prefilled += computed
            seconds = computed * spec.times.prefill_token
            replica.now += seconds
            replica.busy += seconds
            replica.prefill_seconds += seconds
            replica.held += need
            replica.start(_begin_phase(work, 0, replica.steps, work.prompt), next(self._order))
            if work.first is None:
                work.first = replica.now + replica.step()
        self._schedule(index)

    def _found(self, replica: _Replica, work: Work) -> int:
        """Tokens of the prompt found in the replica's prefix cache, which then has its prefix."""
        if not work.prefix_tokens:
            return 0
        found = replica.prefixes.pop(work.prefix, 0)
        replica.prefixes[work.prefix] = work.prefix_tokens
        replica.prefix_tokens += work.prefix_tokens - found
        while replica.prefix_tokens > replica.spec.prefix_tokens and replica.prefixes:
            replica.prefix_tokens -= replica.prefixes.popitem(last=False)[1]
        return min(found, work.prompt - 1)

    def _schedule(self, index: int) -> None:
        replica = self.replicas[index]
        replica.epoch += 1
        change = replica.next_change()
        if change is not None:
            epoch = replica.epoch
            self._at(change, lambda now: self._change(now, index, epoch))

    def _change(self, now: float, index: int, epoch: int) -> None:
        replica = self.replicas[index]
        if epoch != replica.epoch:
            return
        replica.advance(now)
        while replica.heap and replica.heap[0][0] <= replica.steps:
            _, _, running = heapq.heappop(replica.heap)
            replica.finish(running)
            work = running.work
            if running.phase + 1 < len(work.phases):
                replica.start(_begin_phase(work, running.phase + 1, replica.steps, running.context), next(self._order))
                continue
            work.end = replica.now
            replica.held -= work.prompt + work.tokens
            replica.outstanding -= 1
            self._left -= 1
        if replica.draining and not replica.running and not replica.queue:
            self._stop(now, index, then=lambda later: self._restarted(later, index))
            return
        self._admit(index, now)

    # Trouble.

    def _plan_failure(self, now: float, index: int) -> None:
        wait = self.random.expovariate(1 / self._trouble.mean_seconds_between_failures)
        self._at(now + wait, lambda later: self._fail(later, index))

    def _fail(self, now: float, index: int) -> None:
        replica = self.replicas[index]
        if not replica.up:
            return self._plan_failure(now, index)
        self.out.failures += 1
        replica.advance(now)
        lost = [running.work for running in replica.running.values()] + replica.queue
        for running in replica.running.values():
            done = running.work.phases[: running.phase]
            self.out.lost_tokens += sum(steps * rows for steps, rows in done)
        self._stop(now, index, then=lambda later: self._plan_failure(later, index))
        for work in lost:
            work.first = None  # a stream that broke off has to begin again
            self._at(now + self._trouble.detect_seconds, lambda later, work=work: self._send(later, work))

    def _drain_next(self, now: float) -> None:
        while self._to_restart:
            index = self._to_restart.pop(0)
            replica = self.replicas[index]
            if not replica.up:
                continue  # it starts afresh anyway
            replica.draining = True
            self._refresh()
            replica.advance(now)
            if not replica.running and not replica.queue:
                self._stop(now, index, then=lambda later: self._restarted(later, index))
            return

    def _restarted(self, now: float, index: int) -> None:
        self.out.restarts += 1
        self._drain_next(now)

    def _stop(self, now: float, index: int, then: Callable[[float], None]) -> None:
        replica = self.replicas[index]
        replica.up, replica.draining = False, False
        replica.epoch += 1
        replica.reset(now)
        self._refresh()

        def start(later: float) -> None:
            replica.up = True
            replica.now = later
            self._refresh()
            then(later)
            orphans, self._orphans = self._orphans, []
            for work in orphans:
                self._send(later, work)

        self._at(now + replica.spec.start_seconds, start)
