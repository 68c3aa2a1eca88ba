"""Positions and visibility of structured text, as the server gives them.

The training's view: whole well-formed texts at once. Every path starts again at the position after its goal, sees no sibling, and the
conclusion follows the longest path and sees them all. What the server writes itself carries no loss.
"""

from dataclasses import dataclass

import numpy as np

DEPTH = 2  # blocks in blocks that training texts have
PATHS_BITS = 4  # at most 16 paths in a block


@dataclass(frozen=True)
class Controls:
    parallel: int
    end_parallel: int
    goal: int
    end_goal: int
    path: int
    end_path: int
    conclusion: int
    colon: int
    newline: int
    end: tuple  # tokens that end a reply

    @property
    def structural(self):
        return (self.parallel, self.end_parallel, self.goal, self.end_goal, self.path, self.end_path, self.conclusion)

    @staticmethod
    def of(tokenizer):
        names = ("<Parallel>", "</Parallel>", "<Goal>", "</Goal>", "<Path>", "</Path>", "<Conclusion>")
        colon, newline = (tokenizer.encode(text).ids for text in (":", "\n"))
        end = tuple(tokenizer.token_to_id(name) for name in ("<|im_end|>", "<|endoftext|>"))
        return Controls(*(tokenizer.token_to_id(name) for name in names), colon[0], newline[0], end)


@dataclass
class Layout:
    position: np.ndarray  # (n,)
    forced: np.ndarray  # (n,) bool: written by the server, not sampled
    owner: np.ndarray  # (DEPTH, n): block << PATHS_BITS | path at each level, -1 outside
    blocks: int

    def visible(self):
        """(n, n) bool: may token i look at token j?"""
        n = len(self.position)
        out = np.tril(np.ones((n, n), bool))
        for owner in self.owner:
            same_block = (owner[:, None] >> PATHS_BITS) == (owner[None, :] >> PATHS_BITS)
            out &= ~(same_block & (owner[:, None] != owner[None, :]))
        return out


@dataclass
class _Block:
    index: int
    goal_end: int = -1  # position of </Goal>
    longest: int = 0  # the farthest </Path>, relative to it
    paths: int = 0


def layout(ids, controls):
    """Well-formed text only: anything else raises, since the text would train the model on a meaning that it doesn't have."""
    ids = np.asarray(ids)
    n = len(ids)
    position, forced = np.arange(n, dtype=np.int32), np.zeros(n, bool)
    owner = np.full((DEPTH, n), -1, np.int32)
    stack, blocks = [], 0  # open blocks

    for i in np.flatnonzero(np.isin(ids, controls.structural)):
        token = ids[i]
        if token == controls.parallel:
            stack.append(_Block(blocks))
            blocks += 1
            if len(stack) > DEPTH:
                raise ValueError(f"token {i}: blocks are nested deeper than {DEPTH}")
            continue
        if not stack:
            raise ValueError(f"token {i}: a control token outside a block")
        block = stack[-1]
        if token == controls.end_goal:
            block.goal_end = position[i]
            forced[i + 1] = True
        elif token == controls.path:
            position[i:] = block.goal_end + 1 + np.arange(n - i)
            owner[len(stack) - 1, i:] = block.index << PATHS_BITS | block.paths
            block.paths += 1
            colon = i + int(np.argmax(ids[i:] == controls.colon))
            forced[i : colon + 1] = True
        elif token == controls.end_path:
            block.longest = max(block.longest, position[i] - block.goal_end)
            forced[i + 1] = True
            owner[len(stack) - 1, i + 2 :] = -1  # the newline still belongs to the path
        elif token == controls.goal:
            continue
        elif token == controls.conclusion:
            position[i:] = block.goal_end + block.longest + 1 + np.arange(n - i)
            forced[i : i + 2] = True
        else:
            stack.pop()
    if stack:
        raise ValueError("a block is left open")
    return Layout(position, forced, owner, blocks)
