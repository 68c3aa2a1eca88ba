"""The oracle of Multiverse's structure: what each token of a text sees, where it stands, who wrote it.

It reads a list of token ids into a tree of branches and knows nothing of the server's code, so that tests can hold the
engine against it. Total: every list of tokens has one tree. The rules are those of the structured-text contract:

* A block (`<Parallel>`) forks at the `</Goal>` that ends its goal, where the fork rule allows it and the text goes on
  with ⏎ `<Path>` or ends. From there each `<Path>` starts a branch at the position after `</Goal>`.
* `</Path>` ends the innermost branch; the ⏎ after it is the branch's last token.
* `<Conclusion>` takes the parent on after the longest path, seeing every path.
* Control tokens anywhere else are ordinary tokens, counted as malformed.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class ControlTokens:
    parallel: int | None  # None: <Goal> opens its block too
    end_parallel: int  # the token that closes a block
    goal: int
    end_goal: int
    path: int
    end_path: int
    conclusion: int
    newline: int
    label: frozenset[int] = frozenset()  # the tokens that labels are written with: digits, "." and ":"
    label_end: frozenset[int] = frozenset()  # those of them that end a label: with a ":"


class BlockState(enum.Enum):
    OPEN = "open"  # no goal yet, or a goal that did not fork
    GOAL = "goal"  # between <Goal> and </Goal>
    FORKED = "forked"  # paths may start
    CONCLUDED = "concluded"


@dataclass(frozen=True)
class Place:
    """Where the next token of a branch goes: its position, and what the chain that leads to it holds."""

    position: int = 0
    tokens: int = 0  # counted tokens in the longest chain before it
    passes: int = 0  # forward passes that sampled a counted token of that chain

    def latest(self, other: Place) -> Place:
        return Place(
            max(self.position, other.position), max(self.tokens, other.tokens), max(self.passes, other.passes)
        )


@dataclass(eq=False)
class Block:
    index: int  # in the order of the text, over all branches
    state: BlockState = BlockState.OPEN
    goal: int | None = None  # index of the <Goal> that opened the goal
    fork: int | None = None  # index of the </Goal> that forked
    start: Place = Place()  # of its paths
    end: Place = Place()  # of its conclusion, as far as the paths that have ended say
    paths: list[Branch] = field(default_factory=list)
    plain_paths: int = 0  # <Path> kept as ordinary tokens before a fork, not yet matched by their </Path>


@dataclass(eq=False)
class Branch:
    index: int
    first: int  # index of its first token
    parent: Branch | None = None
    block: Block | None = None  # of the parent; None for the root
    number: int = 0  # of the path in its block
    open_blocks: list[Block] = field(default_factory=list)

    @property
    def lineage(self) -> list[Branch]:
        """From the root's child down to itself; the root's is empty."""
        return [*self.parent.lineage, self] if self.parent else []

    def sees(self, other: Branch) -> bool:
        """Whether a token of this branch sees the earlier tokens of the other one: not where the two are, or descend
        from, different paths of one block."""
        for mine, theirs in zip(self.lineage, other.lineage):
            if mine is not theirs:
                return mine.block is not theirs.block
        return True


@dataclass
class Tree:
    """One entry a token in each list; indices are those of the text."""

    blocks: list[Block] = field(default_factory=list)
    branches: list[Branch] = field(default_factory=list)
    branch: list[Branch] = field(default_factory=list)  # that the token belongs to
    position: list[int] = field(default_factory=list)
    forced: list[bool] = field(default_factory=list)  # written by the engine, not sampled
    previous: list[int | None] = field(default_factory=list)  # whose logits it is drawn from; None: forced or first
    token_step: list[int] = field(default_factory=list)  # depth in tokens; its maximum + 1 is the critical path
    step: list[int] = field(default_factory=list)  # forward pass that samples it; forced: that samples its cause
    malformed: list[int] = field(default_factory=list)  # indices of control tokens kept as ordinary ones

    @property
    def owners(self) -> list[dict[int, int]]:
        """For each token, the path number that it belongs to in each enclosing block (by the block's index)."""
        of_branch = [{b.block.index: b.number for b in branch.lineage} for branch in self.branches]
        return [of_branch[branch.index] for branch in self.branch]

    def branch_visibility(self) -> list[list[bool]]:
        """(branches, branches): whether the first sees earlier tokens of the second."""
        return [[mine.sees(theirs) for theirs in self.branches] for mine in self.branches]

    @property
    def visible(self) -> list[list[bool]]:
        """Row i: for each token up to i, whether token i sees it."""
        sees = self.branch_visibility()
        index = [branch.index for branch in self.branch]
        return [[sees[index[i]][index[j]] for j in range(i + 1)] for i in range(len(index))]


@dataclass(frozen=True)
class ForkSite:
    """A `</Goal>` that ends a goal: what a fork rule may want to know."""

    tokens: Sequence[int]
    goal: int  # index of the <Goal> that opened it
    end_goal: int
    depth: int  # of the fork: 1 in the root


class _Due(enum.Enum):
    """What the engine writes next, if the text has it."""

    NOTHING = "nothing"
    FORK_SEPARATOR = "⏎ after </Goal>"
    PATH_NEWLINE = "⏎ after <Path>"
    LABEL = "label"
    PATH_SEPARATOR = "⏎ after </Path>"
    CONCLUSION_NEWLINE = "⏎ after <Conclusion>"


# The rule in the form of the contract's reference: may the goal that ends at this index fork?
MayFork = Callable[[Sequence[int], int], bool]


class TreeReader:
    """Reads a text from left to right. `start`: tokens before this index (a prompt) don't count in chains."""

    def __init__(self, tokens: Sequence[int], ids: ControlTokens, may_fork: Callable[[ForkSite], bool], start: int = 0):
        self._tokens = list(tokens)
        self._ids = ids
        self._may_fork = may_fork
        self._start = start
        self._branch = Branch(index=0, first=0)
        self._place = Place()
        self._due = _Due.NOTHING
        self._ended: Branch | None = None  # the branch that the last token ended
        self.tree = Tree(branches=[self._branch])
        self._before = {ids.path: self._start_path, ids.conclusion: self._start_conclusion}
        self._after = {
            ids.goal: self._open_goal if ids.parallel is not None else self._open_block_and_goal,
            ids.end_goal: self._end_goal,
            ids.end_path: self._end_path,
            ids.end_parallel: self._close_block,
        }
        if ids.parallel is not None:
            self._after[ids.parallel] = self._open_block

    def read(self, end: int | None = None) -> Tree:
        """The tree of the tokens before `end` (default: all). What follows decides whether a goal forks, so a text read
        up to `end` is not the same as a text that ends there."""
        for i in range(len(self.tree.branch), len(self._tokens) if end is None else end):
            self._read(i)
        return self.tree

    def site(self, end_goal: int) -> ForkSite | None:
        """The fork site at `end_goal`, None where it ends no goal. Reads up to there."""
        self.read(end_goal)
        block = self._block()
        if block is None or block.state is not BlockState.GOAL:
            return None
        return ForkSite(self._tokens, block.goal, end_goal, len(self._branch.lineage) + 1)

    def _read(self, i: int) -> None:
        token = self._tokens[i]
        due, ended = self._due, self._ended
        self._due, self._ended = _Due.NOTHING, None
        written = self._is_due(token, due)
        owner = ended if written and due is _Due.PATH_SEPARATOR else None
        if written:
            self._due = self._due_after(token, due)
        starts = token in self._before and self._before[token](i)
        self._record(i, owner or self._branch, forced=written or starts)
        if written and due is _Due.FORK_SEPARATOR:
            block = self._block()
            block.start = replace(block.start, tokens=self._place.tokens)
        if owner:
            owner.block.end = replace(owner.block.end, tokens=max(owner.block.end.tokens, self._place.tokens))
        if token in self._after:
            self._after[token](i)

    def _is_due(self, token: int, due: _Due) -> bool:
        if due is _Due.NOTHING:
            return False
        return token in self._ids.label if due is _Due.LABEL else token == self._ids.newline

    def _due_after(self, token: int, due: _Due) -> _Due:
        if due is _Due.PATH_NEWLINE or (due is _Due.LABEL and token not in self._ids.label_end):
            return _Due.LABEL
        return _Due.NOTHING

    def _record(self, i: int, branch: Branch, forced: bool) -> None:
        place, counts = self._place, i >= self._start
        after = Place(place.position + 1, place.tokens + counts, place.passes + (counts and not forced))
        tree = self.tree
        tree.branch.append(branch)
        tree.position.append(place.position)
        tree.forced.append(forced)
        tree.previous.append(None if forced or i == 0 else i - 1)
        tree.token_step.append(after.tokens - 1)
        tree.step.append(after.passes - 1)
        self._place = after

    def _block(self) -> Block | None:
        """The block that a control token speaks to: the innermost open one of the current branch."""
        return self._branch.open_blocks[-1] if self._branch.open_blocks else None

    # What happens before a token is placed. True: the engine wrote it.

    def _start_path(self, i: int) -> bool:
        block = self._block()
        if block is None or block.state is not BlockState.FORKED:
            if block and block.state is not BlockState.CONCLUDED:
                block.plain_paths += 1
            self.tree.malformed.append(i)
            return False
        branch = Branch(len(self.tree.branches), i, self._branch, block, len(block.paths))
        block.paths.append(branch)
        self.tree.branches.append(branch)
        self._branch, self._place, self._due = branch, block.start, _Due.PATH_NEWLINE
        return True

    def _start_conclusion(self, i: int) -> bool:
        block = self._block()
        if block is None or block.state is not BlockState.FORKED or not block.paths:
            self.tree.malformed.append(i)
            return False
        block.state = BlockState.CONCLUDED
        self._place, self._due = block.end, _Due.CONCLUSION_NEWLINE
        return True

    # What happens after a token is placed.

    def _open_block(self, i: int) -> None:
        block = self._block()
        if block and block.state is BlockState.GOAL:
            self.tree.malformed.append(i)
            return
        opened = Block(len(self.tree.blocks))
        self.tree.blocks.append(opened)
        self._branch.open_blocks.append(opened)

    def _open_goal(self, i: int) -> None:
        block = self._block()
        if block is None or block.state is not BlockState.OPEN:
            self.tree.malformed.append(i)
            return
        block.state, block.goal = BlockState.GOAL, i

    def _open_block_and_goal(self, i: int) -> None:
        block = self._block()
        self._open_block(i)
        if self._block() is not block:
            self._open_goal(i)

    def _end_goal(self, i: int) -> None:
        block = self._block()
        if block is None or block.state is not BlockState.GOAL:
            self.tree.malformed.append(i)
            return
        following = self._tokens[i + 1 : i + 3]
        if following[:1] == [self._ids.newline]:
            del following[0]
        site = ForkSite(self._tokens, block.goal, i, len(self._branch.lineage) + 1)
        if following[:1] not in ([], [self._ids.path]) or not self._may_fork(site):
            block.state = BlockState.OPEN
            return
        block.state, block.fork = BlockState.FORKED, i
        # <Path> shares its position with the separator, which is why the separator adds no position to the start.
        block.start = block.end = self._place
        self._due = _Due.FORK_SEPARATOR

    def _end_path(self, i: int) -> None:
        block, branch = self._block(), self._branch
        if block and block.plain_paths and block.state in (BlockState.OPEN, BlockState.GOAL):
            block.plain_paths -= 1
            self.tree.malformed.append(i)
            return
        if branch.parent is None:
            self.tree.malformed.append(i)
            return
        branch.open_blocks.clear()  # what it left open is abandoned
        branch.block.end = branch.block.end.latest(self._place)
        self._branch, self._ended, self._due = branch.parent, branch, _Due.PATH_SEPARATOR

    def _close_block(self, i: int) -> None:
        if self._block() is None:
            self.tree.malformed.append(i)
            return
        self._branch.open_blocks.pop()


def every_goal_forks(tokens: Sequence[int], end_goal: int) -> bool:
    return True


def reference(
    tokens: Sequence[int], ids: ControlTokens, may_fork: MayFork = every_goal_forks, start: int = 0
) -> Tree:
    """The tree of a text. `may_fork`: a function of (tokens, index of `</Goal>`), as `LabelRule` is."""
    # A rule that can be asked about a site directly needs no second reading to find out where it is.
    allows = getattr(may_fork, "allows", None) or (lambda site: may_fork(site.tokens, site.end_goal))
    return TreeReader(tokens, ids, allows, start).read()


def critical_path(tokens: Sequence[int], ids: ControlTokens, may_fork: MayFork = every_goal_forks) -> int:
    """Tokens in the longest chain, forced ones included."""
    return max(reference(tokens, ids, may_fork).token_step, default=-1) + 1


def steps(tokens: Sequence[int], ids: ControlTokens, may_fork: MayFork = every_goal_forks) -> int:
    """Forward passes that sample at least one token."""
    return max(reference(tokens, ids, may_fork).step, default=-1) + 1


@dataclass(frozen=True)
class Counts:
    """The counters of an answer, by the names that `usage` has for them."""

    tokens: int
    critical_path_tokens: int
    steps: int
    blocks: int
    paths: int
    max_width: int
    max_depth: int
    malformed: int


def trees(
    tokens: Sequence[int], ids: ControlTokens, may_fork: MayFork = every_goal_forks, start: int = 0
) -> Counts:
    """Counters of the tokens from `start` on; before it is the prompt, whose structure they continue. Blocks that fork
    count, and paths that were started."""
    tree = reference(tokens, ids, may_fork, start)
    paths = [branch for branch in tree.branches if branch.block and branch.first >= start]
    widths = {id(branch.block): len(branch.block.paths) for branch in paths}
    return Counts(
        tokens=len(tokens) - start,
        critical_path_tokens=max(tree.token_step[start:], default=-1) + 1,
        steps=max(tree.step[start:], default=-1) + 1,
        blocks=len(widths),
        paths=len(paths),
        max_width=max(widths.values(), default=0),
        max_depth=max((len(branch.lineage) for branch in paths), default=0),
        malformed=sum(i >= start for i in tree.malformed),
    )
