// The branch tree of an answer: grown from a stream's branch events, or taken from what POST /inspect says of a text.
// No DOM. A *run* is what a branch writes between two forks.

import { outlinesOf } from './words.js';

class Run {
  constructor(step) {
    this.text = '';
    this.tokens = 0;
    this.firstStep = this.lastStep = step;
    this.from = this.to = null; // milliseconds since the request was sent; null where nobody was watching
    this.marks = []; // of malformed tokens: {offset (UTF-16 units), text, place}
  }
}

export class Branch {
  constructor(id, parent, label, step) {
    this.id = id;
    this.parent = parent; // null: the root
    this.label = label;
    this.outline = '';
    this.runs = [new Run(step)];
    this.forks = []; // forks[k]: the paths between runs k and k + 1
    this.tokens = 0;
    this.ended = false;
  }
  get run() {
    return this.runs[this.runs.length - 1];
  }
  get lastStep() {
    return this.run.lastStep;
  }
  // The paths that are being written now, if any.
  get openPaths() {
    return this.forks.length >= this.runs.length ? this.forks[this.forks.length - 1] : null;
  }
}

export class Tree {
  constructor() {
    this.root = new Branch('', null, '', 0);
    this.branches = new Map([['', this.root]]);
    this.tokens = 0;
    this.onChange = () => {}; // (branch): the one that wrote, forked, joined or ended
  }

  // One branch event. Events that contradict the tree are left out: the server need not be ours.
  add(event, now) {
    if (event.event === 'fork') return this.#fork(event);
    const branch = this.branches.get(event.id);
    if (!branch) return;
    if (event.event === 'token') {
      const run = branch.run;
      this.tokens += event.tokens - branch.tokens;
      run.tokens += event.tokens - branch.tokens;
      branch.tokens = event.tokens;
      run.text += event.text;
      run.lastStep = event.step ?? event.tokens;
      // The engine writes the headers of all paths at the fork; a path begins with the first token that it draws.
      if (run.lastStep > run.firstStep) {
        run.from ??= now;
        run.to = now;
      }
    } else if (event.event === 'end') {
      branch.ended = true;
    } else if (event.event === 'join' && branch.openPaths) {
      branch.runs.push(new Run(Math.max(event.step ?? 0, ...branch.openPaths.map((path) => path.lastStep))));
    }
    this.onChange(branch);
  }

  #fork(event) {
    const parent = this.branches.get(event.parent ?? '');
    if (!parent || this.branches.has(event.id)) return;
    if (!parent.openPaths) parent.forks.push([]);
    this.#addPath(parent, parent.forks.length - 1, event);
    this.onChange(parent);
  }

  #addPath(parent, fork, { id, label }) {
    const child = new Branch(id, parent, label, parent.runs[fork].lastStep);
    const paths = parent.forks[fork];
    paths.outlines ??= outlinesOf(parent.runs[fork].text);
    child.outline = paths.outlines[paths.length] ?? '';
    paths.push(child);
    this.branches.set(id, child);
    return child;
  }

  // Branches with their depth, each before its paths, in the order of the text.
  *inOrder(branch = this.root, depth = 0) {
    yield { branch, depth };
    for (const paths of branch.forks) for (const path of paths) yield* this.inOrder(path, depth + 1);
  }

  // The text as the answer has it, once everything is written.
  text(branch = this.root) {
    let text = '';
    branch.runs.forEach((run, k) => {
      text += run.text;
      for (const path of branch.forks[k] ?? []) text += this.text(path);
    });
    return text;
  }

  // The branches of the longest chain: at each fork the path that ended last.
  criticalPath(branch = this.root, on = new Set()) {
    on.add(branch);
    for (const paths of branch.forks) {
      this.criticalPath(paths.reduce((longest, path) => (path.lastStep > longest.lastStep ? path : longest)), on);
    }
    return on;
  }

  counts() {
    let steps = 0;
    let width = 0;
    let paths = 0;
    let deepest = 0;
    for (const { branch, depth } of this.inOrder()) {
      steps = Math.max(steps, ...branch.runs.map((run) => run.lastStep));
      deepest = Math.max(deepest, depth);
      for (const fork of branch.forks) {
        paths += fork.length;
        width = Math.max(width, fork.length);
      }
    }
    return { tokens: this.tokens, steps, paths, width, depth: deepest };
  }

  toJSON() {
    return [...this.inOrder()].map(({ branch }) => ({
      id: branch.id,
      label: branch.label,
      fork: branch.parent?.forks.findIndex((paths) => paths.includes(branch)),
      ended: branch.ended,
      runs: branch.runs.map(({ text, tokens, firstStep, lastStep, from, to }) => ({
        text, tokens, first_step: firstStep, last_step: lastStep, from, to,
      })),
    }));
  }

  // What toJSON() gave. Throws where it can't have.
  static fromJSON(list) {
    const tree = new Tree();
    for (const saved of list) {
      const branch = saved.id === '' ? tree.root : tree.#restorePath(saved);
      branch.runs = saved.runs.map((run) => tree.#readRun(run));
      if (branch.runs.length === 0) throw new Error(`the branch ${saved.id} has no text`);
      branch.tokens = branch.runs.reduce((sum, run) => sum + run.tokens, 0);
      branch.ended = saved.ended === true;
      tree.tokens += branch.tokens;
    }
    return tree;
  }

  #restorePath({ id, label, fork }) {
    const parent = this.branches.get(String(id).split('/').slice(0, -1).join('/'));
    if (!parent || this.branches.has(id) || !(fork <= parent.forks.length && fork < parent.runs.length)) {
      throw new Error(`the branch ${id} has no place in the tree`);
    }
    parent.forks[fork] ??= [];
    return this.#addPath(parent, fork, { id, label: String(label) });
  }

  #readRun(saved) {
    const run = new Run(Number(saved.first_step) || 0);
    run.text = String(saved.text);
    run.tokens = Number(saved.tokens) || 0;
    run.lastStep = Number(saved.last_step) || 0;
    run.from = typeof saved.from === 'number' ? saved.from : null;
    run.to = typeof saved.to === 'number' ? saved.to : null;
    return run;
  }

  // From the answer of POST /inspect. Texts may be cut off or malformed anywhere, so a path may come where the branch
  // has no block, and a branch go on without one.
  static fromReport(report) {
    const tree = new Tree();
    const paths = new Map(report.tree.map((path) => [path.id, path]));
    const taken = report.segments.map((segment) => tree.#takeSegment(segment, paths));
    for (const { segment, offset, text, place } of report.malformed_at) {
      const { run, from } = taken[segment];
      const before = [...report.segments[segment].text].slice(0, offset).join('');
      run.marks.push({ offset: from + before.length, text, place });
    }
    return tree;
  }

  #takeSegment(segment, paths) {
    if (!this.branches.has(segment.id)) {
      const parent = segment.id.split('/').slice(0, -1).join('/');
      this.#fork({ id: segment.id, parent, label: paths.get(segment.id).label });
      const created = this.branches.get(segment.id);
      created.ended = paths.get(segment.id).ended;
      created.runs = [];
    }
    const branch = this.branches.get(segment.id);
    const fresh = branch.runs.length <= branch.forks.length && !(branch === this.root && this.tokens === 0);
    if (fresh) branch.runs.push(new Run(segment.first_step));
    const run = branch.run;
    const from = run.text.length;
    run.text += segment.text;
    run.tokens += segment.tokens;
    run.lastStep = Math.max(run.lastStep, segment.last_step);
    branch.tokens += segment.tokens;
    this.tokens += segment.tokens;
    return { run, from };
  }
}
