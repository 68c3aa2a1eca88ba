// An answer's tree as a document: each block as columns (or lines) under its outlines, nested ones inside, the
// conclusion below. Follows the tree while it grows; draws at most once a frame, and only what is open.
import { el, button, inSlices, perFrame, setText, count, plural } from './dom.js';
import { Prose } from './prose.js';
import { RunReader } from './run_reader.js';
import { lastLine, Words } from './words.js';

const kMaxColumns = 12; // more paths start as lines
const kManyBranches = 24; // with more, what changed is gathered for a tenth of a second
const kMoves = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
const kFrameMs = 12; // of drawing in one frame; what is left comes in the next
const kFrameLines = 150; // for the same reason: laying them out takes longer than writing them

// What one branch wrote, with its blocks.
class BranchView {
  #runs = 0; // begun
  #reader = null;
  #prose = null; // where text goes now; null: nowhere
  #outline = null; // the lane of the outline being written
  #started = false; // at a conclusion's first words
  #goalClosed = false; // of `pending`: now it forks, or it never will

  constructor(branch, answer) {
    this.branch = branch;
    this.answer = answer;
    this.blocks = []; // blocks[k]: of fork k
    this.pending = null; // the block whose goal is being written
    this.node = el('div.branch');
  }

  sync() {
    const { branch } = this;
    for (;;) {
      if (!this.#reader) {
        if (this.#runs === branch.runs.length) break;
        this.#beginRun(branch.runs[this.#runs]);
      }
      const later = this.#runs < branch.runs.length; // the run is over
      const whole = later || branch.ended || this.answer.finished;
      for (const piece of this.#reader.next(whole, this.answer.room)) this.#take(piece);
      if (this.#reader.behind) {
        this.answer.continueWith(branch);
        return;
      }
      if (!later) break;
      this.#reader = null;
    }
    branch.forks.forEach((paths, k) => this.#block(k).sync(paths));
    if (branch.ended || this.answer.finished) this.#prose?.finish();
  }

  #beginRun(run) {
    const number = this.#runs++;
    this.#reader = new RunReader(run, number === 0 && this.branch.parent !== null, this.branch.label);
    this.#prose?.finish();
    this.#prose = null;
    this.#started = number > 0;
    if (number > 0) this.#block(number - 1).sync(this.branch.forks[number - 1], true);
  }

  #block(k) {
    if (!this.blocks[k]) {
      this.blocks[k] = this.pending ?? this.node.appendChild(new BlockView(this).node).view;
      this.pending = null;
      this.#goalClosed = false;
      this.#prose?.finish();
      this.#prose = null;
    }
    return this.blocks[k];
  }

  #text(text) {
    if (this.#outline) return this.#outline.addOutline(text);
    if (this.#goalClosed && text.trim()) this.#keepGoal();
    if (!this.#prose) {
      if (!text.trim() || this.pending) return;
      this.#prose = new Prose();
      this.node.append(this.#prose.node);
      text = text.replace(/^\n?[ \t]*/, '');
    }
    this.#prose.add(text);
  }

  #take(piece) {
    if (piece.text !== undefined) {
      if (piece.text.trim()) this.#started = false;
      return this.#text(piece.text);
    }
    if (piece.mark) return this.#chip(piece.mark.text, `Malformed: the grammar has no place for it here (${piece.mark.place})`);
    this.#tag(piece.tag);
  }

  #tag(tag) {
    const role = this.answer.words.role(tag);
    if (role === null) return this.#text(tag);
    if (this.#goalClosed) this.#keepGoal();
    if (role === 'goal_open' && !this.pending) {
      this.#endProse();
      this.pending = this.node.appendChild(new BlockView(this).node).view;
    } else if (role === 'outline_open' && this.pending) {
      this.#outline = this.pending.addPlanned();
    } else if (role === 'outline_close') {
      this.#outline = null;
    } else if (role === 'fork' && this.pending) {
      this.#outline = null;
      this.#goalClosed = true;
    } else if (role === 'conclusion_open' && this.#started) {
      this.#prose = this.blocks[this.#runs - 2].conclude();
      this.#started = false;
    } else if (role === 'think_close' && !this.branch.parent) {
      this.#endProse();
      this.node.append(el('hr'));
    } else if (role === 'path_open' || role === 'conclusion_open' || (role === 'path_close' && !this.branch.parent)) {
      this.#chip(tag, 'Written by the model where the grammar has no place for it');
    } else {
      this.#endProse();
    }
  }

  // The goal did not fork: what it planned stays as a list.
  #keepGoal() {
    this.pending.keep();
    this.pending = null;
    this.#goalClosed = false;
  }

  #endProse() {
    this.#prose?.finish();
    this.#prose = null;
  }

  #chip(text, title) {
    if (!this.#prose) {
      this.#prose = new Prose();
      this.node.append(this.#prose.node);
    }
    this.#prose.insert(el('mark.malformed', { title }, text));
  }
}

// A block: its paths as lanes, then its conclusion.
class BlockView {
  #begun = 0; // paths with a lane
  #touched = false; // the reader has chosen

  constructor(owner) {
    this.owner = owner;
    this.lanes = [];
    this.title = el('span.title');
    this.toggle = button('Lines', () => this.#setMode(this.mode === 'columns' ? 'lines' : 'columns', true));
    this.grid = el('div.lanes', { role: 'list' });
    this.grid.onkeydown = (event) => this.#key(event);
    this.node = el('div.block', { role: 'group' }, el('header', {}, this.title, this.toggle), this.grid);
    this.node.view = this;
    this.node.setAttribute('aria-label', owner.branch.label ? `Paths of ${owner.branch.label}` : 'Paths');
    this.mode = 'columns';
    this.toggle.hidden = true;
    this.#title();
  }

  addPlanned() {
    const lane = new LaneView(this);
    this.lanes.push(lane);
    lane.head.tabIndex = this.lanes.length === 1 ? 0 : -1;
    this.grid.append(lane.node);
    this.#title();
    return lane;
  }

  // `paths` of the tree, and whether they have joined.
  sync(paths, joined = this.owner.branch.openPaths !== paths) {
    const begins = !this.paths;
    this.paths = paths;
    for (; this.#begun < paths.length; this.#begun++) this.#begin(this.#begun);
    this.node.classList.toggle('many', paths.length > kMaxColumns);
    // Rows as equal as they can be, of at most four where the window is wide enough.
    this.node.style.setProperty('--columns', Math.ceil(paths.length / Math.ceil(paths.length / 4)));
    const many = Math.max(paths.length, this.lanes.length) > kMaxColumns; // planned ones count
    if (begins || (many && !this.#touched && this.mode === 'columns')) {
      this.#setMode(many || this.owner.answer.compact ? 'lines' : 'columns');
    }
    if (joined && !this.joined) {
      this.joined = true;
      this.node.classList.add('joined');
      if (!this.#touched && !this.owner.answer.keepOpen) this.#setMode('lines');
    }
    this.#title();
  }

  #begin(i) {
    const lane = this.lanes[i] ?? this.addPlanned();
    lane.setPath(this.paths[i]);
    if (this.mode === 'columns' && i < kMaxColumns) lane.setOpen(true);
  }

  #title() {
    const { paths } = this;
    if (!paths) {
      setText(this.title, this.lanes.length ? `Plans ${plural(this.lanes.length, 'path')} …` : 'Plans …');
      return;
    }
    const ended = paths.filter((path) => path.ended).length;
    setText(this.title, this.joined || ended === paths.length
      ? `${plural(paths.length, 'path')} joined`
      : `${plural(paths.length, 'path')}, ${count(paths.length - ended)} running`);
    this.toggle.hidden = false;
  }

  #setMode(mode, byHand = false) {
    this.mode = mode;
    this.#touched ||= byHand;
    this.node.classList.toggle('columns', mode === 'columns');
    this.node.classList.toggle('as-lines', mode === 'lines');
    this.toggle.textContent = mode === 'columns' ? 'Lines' : 'Columns';
    this.lanes.forEach((lane, i) => {
      if (mode === 'columns' && i >= kMaxColumns) inSlices(() => this.mode === mode && lane.setOpen(true));
      else lane.setOpen(mode === 'columns');
    });
  }

  touch() {
    this.#touched = true;
  }

  // A block is one stop of the Tab key; arrows go from path to path.
  #key(event) {
    const from = this.lanes.findIndex((lane) => lane.head === event.target);
    if (from < 0 || !(event.key in kMoves) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const last = this.lanes.length - 1;
    this.lanes[Math.min(Math.max(from + kMoves[event.key], 0), last)].focus();
  }

  stopAt(lane) {
    for (const other of this.lanes) other.head.tabIndex = other === lane ? 0 : -1;
  }

  keep() {
    this.title.textContent = `Plans ${plural(this.lanes.length, 'path')}, but did not fork`;
  }

  conclude() {
    const prose = new Prose();
    this.node.append(el('div.conclusion', {}, prose.node));
    return prose;
  }
}

// A path: a head that is always there, a body that is built when it is opened.
class LaneView {
  #planned = '';

  constructor(block) {
    this.block = block;
    this.path = null;
    this.view = null;
    this.open = false;
    this.label = el('span.label');
    this.outline = el('span.outline');
    this.tail = el('span.last');
    this.tokens = el('span.tokens');
    this.head = button('', () => {
      if (!this.path) return;
      this.block.touch();
      this.setOpen(!this.open);
    }, { 'aria-expanded': 'false', 'aria-disabled': 'true' });
    this.head.onfocus = () => this.block.stopAt(this);
    this.head.append(this.label, this.outline, this.tail, this.tokens);
    this.body = el('div.body');
    this.follows = true; // its end, while it grows
    this.body.onscroll = () => {
      this.follows = this.body.scrollTop + this.body.clientHeight >= this.body.scrollHeight - 24;
    };
    this.node = el('div.lane.planned', { role: 'listitem' }, this.head, this.body);
  }

  addOutline(text) {
    this.#planned += text;
    const [, label, outline] = /^\s*(\d+(?:\.\d+)*)?\s*:?([\s\S]*)$/.exec(this.#planned);
    this.label.textContent = label ?? '';
    this.outline.textContent = outline.trim();
  }

  setPath(path) {
    this.path = path;
    this.label.textContent = path.label;
    this.outline.textContent = path.outline;
    this.head.removeAttribute('aria-disabled');
    this.node.classList.remove('planned');
    this.node.dataset.id = path.id;
    this.block.owner.answer.lanes.set(path, this);
    this.sync();
  }

  setOpen(open) {
    this.open = open && this.path !== null;
    this.node.classList.toggle('open', this.open);
    this.head.setAttribute('aria-expanded', String(this.open));
    if (this.open && !this.view) {
      this.view = new BranchView(this.path, this.block.owner.answer);
      this.body.append(this.view.node);
    }
    this.sync();
  }

  sync() {
    if (!this.path) return;
    const { path } = this;
    const fork = path.openPaths;
    setText(this.tokens, count(path.tokens));
    this.node.classList.toggle('ended', path.ended);
    this.node.classList.toggle('forked', path.forks.length > 0);
    this.node.classList.toggle('critical', this.block.owner.answer.critical.has(path));
    if (this.open) {
      setText(this.tail, '');
      this.view.sync();
      if (this.follows && !path.ended) this.block.owner.answer.followed.add(this);
    } else {
      const nested = path.forks.length ? `${plural(path.forks.flat().length, 'path')} · ` : '';
      setText(this.tail, nested + (fork ? '…' : lastLine(path.run.text)));
    }
  }

  focus(options) {
    this.head.focus(options);
  }

  reveal() {
    for (let lane = this; lane; lane = lane.block.owner.answer.lanes.get(lane.block.owner.branch)) {
      lane.block.touch();
      if (!lane.open) lane.setOpen(true);
    }
    this.node.scrollIntoView({ block: 'nearest' });
    this.focus({ preventScroll: true });
  }
}

// The whole answer. Call touch() with each branch that changed; finish() at the end.
export class AnswerView {
  #changed = new Set();
  #unfinished = new Set();
  #later = null;
  #draw = perFrame(() => this.#sync());

  // compact: blocks begin as lines. keepOpen: blocks that have joined stay as they are.
  constructor(tree, { compact = false, keepOpen = false } = {}) {
    this.tree = tree;
    this.compact = compact;
    this.keepOpen = keepOpen;
    this.words = new Words();
    this.lanes = new Map(); // by branch, for those whose block has been drawn
    this.finished = false;
    this.room = { lines: kFrameLines }; // what is left of this frame's
    this.critical = new Set(); // once it is finished
    this.followed = new Set(); // lanes to be scrolled to their end, once all of a frame is in the document
    this.view = new BranchView(tree.root, this);
    this.node = el('div.answer', {}, this.view.node);
  }

  touch(branch) {
    this.#changed.add(branch);
    if (this.tree.branches.size <= kManyBranches) return this.#draw();
    this.#later ??= setTimeout(() => {
      this.#later = null;
      this.#draw();
    }, 100);
  }

  // There was no room for all that the branch has written.
  continueWith(branch) {
    this.#unfinished.add(branch);
    this.#draw();
  }

  finish() {
    this.finished = true;
    this.critical = this.tree.criticalPath();
    for (const { branch } of this.tree.inOrder()) this.#changed.add(branch);
    this.#draw();
  }

  #sync() {
    const stop = performance.now() + kFrameMs;
    this.room.lines = kFrameLines;
    for (const branch of this.#unfinished) this.#changed.add(branch);
    this.#unfinished.clear();
    const parents = new Set();
    for (const branch of this.#changed) {
      this.#changed.delete(branch);
      if (branch === this.tree.root) this.view.sync();
      else this.lanes.get(branch)?.sync();
      if (branch.parent && !this.#changed.has(branch.parent)) parents.add(branch.parent);
      if (performance.now() > stop) break;
    }
    for (const parent of parents) this.#syncBlock(parent);
    // Reading and setting in turns would lay the page out anew for each lane.
    for (const lane of this.followed) lane.body.scrollTop = Number.MAX_SAFE_INTEGER;
    this.followed.clear();
    if (this.#changed.size) this.#draw();
  }

  // A block's own line says how many of its paths run.
  #syncBlock(parent) {
    const view = parent === this.tree.root ? this.view : this.lanes.get(parent)?.view;
    view?.blocks[parent.forks.length - 1]?.sync(parent.forks.at(-1));
  }
}
