"""Greedy decoding of many prompts at once under the server's rules: forks, forced tokens, positions, joins.

For evaluation while the weights are still on the training machine. A request is a tree of branches over one cache; each pass carries, for
every request, all the tokens that its running branches have ready, and samples where a branch goes on.
"""

import re
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

import structure

LABEL = re.compile(r"<Outline>\s*(\d+(?:\.\d+)*):")
MAX_PATHS = 16


@dataclass
class Block:
    goal: int = -1  # where its goal starts in the branch's tokens, -1 outside a goal
    goal_end: int = -1  # position of </Goal>
    waiting: int = 0
    longest: int = 0
    last_step: int = 0  # of its paths' tokens, for the critical path


@dataclass
class Branch:
    owners: tuple
    position: int  # of its next token
    step: int  # tokens on the longest chain that ends before its next token
    parent: "Branch | None" = None
    tokens: list = field(default_factory=list)  # ids, and lists of branches where it forked
    blocks: list = field(default_factory=list)

    def canonical(self):
        for token in self.tokens:
            if isinstance(token, list):
                for branch in token:
                    yield from branch.canonical()
            else:
                yield token


class Request:
    def __init__(self, tokenizer, controls, prompt, max_tokens):
        self.tokenizer, self.controls, self.max_tokens = tokenizer, controls, max_tokens
        self.used = self.forks = self.slots = self.malformed = 0
        self.steps = 0
        self.root = Branch((-1,) * structure.DEPTH, 0, 0)
        self.done = self.truncated = False
        self.pending = []  # (token, position, owners, branch that samples from it)
        for i, token in enumerate(prompt):
            self.pending.append((token, i, self.root.owners, self.root if i == len(prompt) - 1 else None))
        self.root.position = len(prompt)

    def write(self, branch, tokens, sample=True):
        for i, token in enumerate(tokens):
            samples = sample and i == len(tokens) - 1
            branch.tokens.append(token)
            self.pending.append((token, branch.position, branch.owners, branch if samples else None))
            branch.position += 1
            branch.step += 1
        self.used += len(tokens)
        self.steps = max(self.steps, branch.step)

    def take(self, branch, token):
        """The branch sampled `token`."""
        c = self.controls
        block = branch.blocks[-1] if branch.blocks else None
        if self.used >= self.max_tokens:
            self.done = self.truncated = True
            return
        if token in c.end and not branch.parent:
            branch.tokens.append(token)
            branch.step += 1
            self.steps, self.used, self.done = max(self.steps, branch.step), self.used + 1, True
            return
        if token == c.end_path and branch.parent or token in c.end:
            self.close(branch)
            return
        if token == c.end_goal and block and block.goal >= 0:
            # A goal that cannot fork is plain text and well formed.
            labels = LABEL.findall(self.tokenizer.decode(branch.tokens[block.goal :], skip_special_tokens=False))
            block.goal = -1
            level = branch.owners.index(-1) if -1 in branch.owners else structure.DEPTH
            if 1 <= len(labels) <= MAX_PATHS and level < structure.DEPTH:
                self.fork(branch, block, labels, level)
                return
        elif token == c.parallel and not (block and block.goal >= 0):
            branch.blocks.append(Block())
        elif token == c.goal and block and block.goal < 0 and block.goal_end < 0:
            block.goal = len(branch.tokens)
        elif token == c.end_parallel and block:
            branch.blocks.pop()
        elif token in c.structural:
            self.malformed += 1  # no place for it here: it stays as an ordinary token
        self.write(branch, [token])

    def fork(self, branch, block, labels, level):
        c = self.controls
        self.write(branch, [c.end_goal, c.newline], sample=False)
        block.goal_end, block.waiting = branch.position - 2, len(labels)
        paths = []
        for n, label in enumerate(labels):
            owners = list(branch.owners)
            owners[level] = self.forks << structure.PATHS_BITS | n
            path = Branch(tuple(owners), block.goal_end + 1, branch.step, branch)
            self.write(path, [c.path, c.newline, *self.tokenizer.encode(label + ":").ids])
            paths.append(path)
        branch.tokens.append(paths)
        self.forks += 1

    def close(self, path):
        c, parent = self.controls, path.parent
        self.write(path, [c.end_path, c.newline], sample=False)
        block = parent.blocks[-1]
        block.longest = max(block.longest, path.position - 2 - block.goal_end)
        block.last_step = max(block.last_step, path.step)
        block.waiting -= 1
        if not block.waiting:
            parent.position, parent.step = block.goal_end + block.longest + 1, block.last_step
            self.write(parent, [c.conclusion, c.newline])

    def reply(self):
        return list(self.root.canonical())


class Cache:
    def __init__(self, model, config, requests, slots):
        device = next(model.parameters()).device
        head = config["hidden_size"] // config["num_attention_heads"]
        shape = (config["num_hidden_layers"], requests, config["num_key_value_heads"], slots, head)
        dtype = next(model.parameters()).dtype
        self.model, self.device = model, device
        self.keys, self.values = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(2))
        self.owners = torch.full((requests, structure.DEPTH, slots), -1, dtype=torch.int32, device=device)

    def keep(self, rows):
        rows = torch.tensor(rows, device=self.device)
        self.keys, self.values, self.owners = self.keys[:, rows], self.values[:, rows], self.owners[rows]

    def attend(self, layer, row, slot, mask):
        keys, values = self.keys[layer], self.values[layer]
        context = mask.shape[-1]

        def mix(q, k, v):
            # (batch, heads, queries, head); a padded query writes to the last slot, which no mask shows.
            keys[row, :, slot] = k.transpose(1, 2)
            values[row, :, slot] = v.transpose(1, 2)
            # The query heads that share a key head become further queries of it, so that no key is copied.
            queries, shared = q.shape[2], q.shape[1] // k.shape[1]
            q = q.unflatten(1, (-1, shared)).flatten(2, 3)
            out = F.scaled_dot_product_attention(q, keys[:, :, :context], values[:, :, :context], attn_mask=mask.repeat(1, 1, shared, 1))
            return out.unflatten(2, (shared, queries)).flatten(1, 2)

        return mix

    @torch.no_grad()
    def forward(self, requests):
        """Runs every request's pending tokens; returns the argmax row of each, aligned with `pending`."""
        widest, last = max(len(r.pending) for r in requests), self.keys.shape[3] - 1
        plane = torch.zeros((len(requests), widest, 3 + structure.DEPTH), dtype=torch.int64)
        plane[:, :, 2], plane[:, :, 3:] = last, -1
        for row, request in enumerate(requests):
            if request.pending:
                entries = [(t, p, request.slots + i, *o) for i, (t, p, o, _) in enumerate(request.pending)]
                plane[row, : len(entries)] = torch.tensor(entries)
                request.slots += len(entries)
        context = min(last, -(-max(r.slots for r in requests) // 128) * 128)
        plane = plane.to(self.device)
        ids, positions, slot, owners = plane[..., 0], plane[..., 1], plane[..., 2], plane[..., 3:].int()
        row = torch.arange(len(requests), device=self.device)[:, None].expand_as(slot)
        for level in range(structure.DEPTH):
            self.owners[row, level, slot] = owners[..., level]
        mask = torch.arange(context, device=self.device)[None, None] <= slot[..., None]
        for level in range(structure.DEPTH):
            mine, seen = owners[..., level, None], self.owners[:, None, level, :context]
            mask &= (mine == seen) | (mine >> structure.PATHS_BITS != seen >> structure.PATHS_BITS)
        layers = [self.attend(layer, row, slot, mask[:, None]) for layer in range(len(self.keys))]
        return self.model(ids, positions, layers).argmax(-1).tolist()


def decode(model, config, tokenizer, prompts, max_tokens=3000):
    """Greedy replies to token lists; the requests, finished."""
    controls = structure.Controls.of(tokenizer)
    requests = [Request(tokenizer, controls, prompt, max_tokens) for prompt in prompts]
    running = list(requests)
    cache = Cache(model, config, len(running), max(map(len, prompts)) + max_tokens + 128)
    while running:
        sampled = cache.forward(running)
        for request, tokens in zip(running, sampled):
            pending, request.pending = request.pending, []
            for (*_, branch), token in zip(pending, tokens):
                if branch and not request.done:
                    request.take(branch, token)
        left = [i for i, r in enumerate(running) if not r.done]
        if len(left) <= 0.8 * len(running):  # finished requests cost as much as running ones
            running = [running[i] for i in left]
            if running:
                cache.keep(left)
        for request in running:
            if request.done:
                request.pending = []
    return requests
