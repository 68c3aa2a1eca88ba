// The tree over time: one row a branch, one bar a run, forks and joins as lines, the critical path marked. The axis
// counts steps (passes of an engine at its best), or the clock as it was seen here.
import { announce, el, button, colours, perFrame, setText, count, seconds } from './dom.js';

const kAxis = 22; // pixels below the rows
const kLabels = 44; // pixels before the bars, where there is room for labels
const kRow = { most: 18, least: 3, labelled: 11 };
const kHeight = 460; // what the rows may take, before they get thin
const kDescribeEvery = 1000; // ms, while it grows
const kKeys = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };

function niceStep(range, most) {
  const rough = range / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((m) => m * power).find((step) => step >= rough);
}

export class Rail {
  #draw = perFrame(() => this.#paint());
  clock = false; // as it was drawn last
  #hover = null; // the row pointed at, by mouse or keys
  #rows = [];
  #width = 0;
  #described = 0;
  #lastPaint = 0;
  #timer = null;

  // onPick(branch): a row was clicked. limit: the axis's end in ms, for two rails that are compared.
  constructor(tree, { clock = false, onPick = () => {}, canSwitch = true } = {}) {
    this.tree = tree;
    this.wantsClock = clock;
    this.limit = 0;
    this.onPick = onPick;
    this.canvas = el('canvas', { role: 'img' });
    this.tip = el('p.tip');
    this.axis = button('', () => {
      this.wantsClock = !this.wantsClock;
      this.changed();
    });
    this.axis.hidden = !canSwitch;
    this.axis.title = 'Switch the axis between steps and the clock';
    this.title = el('span.legend', {},
      el('span.key.critical', { title: 'The longest chain: at each fork the path that ended last' }, 'critical path'),
      (this.running = el('span.key.live', { hidden: true }, 'running')));
    this.plot = el('div.plot', { tabindex: '0', role: 'application', 'aria-label': 'Branches over time: arrow keys choose one, Enter shows it' },
      this.canvas);
    this.node = el('div.rail.drawn', { role: 'group', 'aria-label': 'Tree over time' }, el('header', {}, this.title, this.axis), this.tip, this.plot);
    this.canvas.onmousemove = (event) => this.#point(event);
    this.canvas.onmouseleave = () => this.#point(null);
    this.canvas.onclick = () => this.#hover && this.onPick(this.#hover.branch);
    this.node.addEventListener('theme', () => this.#draw());
    this.plot.onkeydown = (event) => this.#key(event);
    this.plot.onblur = () => this.#choose(null);
    new ResizeObserver((entries) => {
      this.#width = entries.at(-1).contentRect.width;
      this.#draw();
    }).observe(this.plot);
  }

  // At most ten times a second.
  changed() {
    const due = this.#lastPaint + 100 - performance.now();
    if (due <= 0) this.#draw();
    else this.#timer ??= setTimeout(() => this.#draw(), due);
  }

  #ends(run) {
    return this.clock ? [run.from ?? 0, run.to ?? run.from ?? 0] : [run.firstStep, run.lastStep];
  }

  #layout() {
    this.#rows = [...this.tree.inOrder()];
    const height = Math.min(kRow.most, Math.max(kRow.least, kHeight / this.#rows.length));
    const labelled = height >= kRow.labelled;
    const width = this.#width;
    let end = this.clock ? this.limit : 0;
    for (const { branch } of this.#rows) for (const run of branch.runs) end = Math.max(end, this.#ends(run)[1]);
    const left = labelled && this.#rows.length > 1 ? kLabels : 2;
    return { height, labelled, width, left, scale: (width - left - 8) / Math.max(end, 1), end };
  }

  #paint() {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#lastPaint = performance.now();
    if (!this.node.isConnected || this.#width === 0) return;
    this.clock = this.wantsClock && this.tree.root.runs[0].from !== null;
    this.axis.disabled = this.tree.root.runs[0].from === null;
    setText(this.axis, `Axis: ${this.clock ? 'clock' : 'steps'}`);
    this.running.hidden = !this.live;
    const plan = (this.plan = this.#layout());
    this.tip.dataset.hint = this.#rows.length > 1 ? 'Click a row to see its lane' : '';
    const pixels = window.devicePixelRatio || 1;
    const total = Math.ceil(this.#rows.length * plan.height) + kAxis;
    this.canvas.style.height = `${total}px`;
    if (this.canvas.width !== Math.round(plan.width * pixels) || this.canvas.height !== Math.round(total * pixels)) {
      this.canvas.width = Math.round(plan.width * pixels);
      this.canvas.height = Math.round(total * pixels);
    }
    const pen = this.canvas.getContext('2d');
    pen.setTransform(pixels, 0, 0, pixels, 0, 0);
    pen.clearRect(0, 0, plan.width, total);
    this.colours = colours();
    this.#paintAxis(pen, plan, total);
    const critical = this.tree.criticalPath();
    this.#rows.forEach((row, i) => this.#paintRow(pen, plan, row, i, critical));
    if (!this.live || this.#lastPaint - this.#described > kDescribeEvery) this.#describe();
  }

  #x(plan, value) {
    return plan.left + value * plan.scale;
  }

  #paintAxis(pen, plan, total) {
    pen.font = '10px system-ui, sans-serif';
    pen.fillStyle = this.colours.muted;
    pen.strokeStyle = this.colours.strong;
    pen.lineWidth = 1;
    const bottom = total - kAxis + 2.5;
    const step = niceStep(Math.max(plan.end, 1), Math.max(2, plan.width / 70));
    pen.textAlign = 'center';
    pen.globalAlpha = 0.5;
    for (let value = 0; value <= plan.end; value += step) {
      const x = Math.round(this.#x(plan, value)) + 0.5;
      pen.beginPath();
      pen.moveTo(x, 0);
      pen.lineTo(x, bottom);
      pen.stroke();
    }
    pen.globalAlpha = 1;
    for (let value = 0; value <= plan.end; value += step) {
      const text = this.clock ? `${+(value / 1000).toFixed(3)} s` : count(value);
      const x = this.#x(plan, value);
      if (x < plan.width - 12) pen.fillText(text, Math.max(x, 8), total - 6);
    }
  }

  #paintRow(pen, plan, { branch, depth }, i, critical) {
    const top = i * plan.height;
    const thick = plan.height >= 8 ? plan.height - 6 : Math.max(plan.height - 1, 2);
    const middle = top + plan.height / 2;
    const on = critical.has(branch);
    const colour = on ? this.colours.critical : this.colours.bar;
    branch.runs.forEach((run, k) => {
      const [from, to] = this.#ends(run);
      const x = this.#x(plan, from);
      pen.globalAlpha = this.#hover && this.#hover.branch !== branch ? 0.45 : 1;
      pen.fillStyle = branch.parent && !branch.ended && k === branch.runs.length - 1 && this.live ? this.colours.live : colour;
      pen.fillRect(x, middle - thick / 2, Math.max((to - from) * plan.scale, 1.5), thick);
      pen.globalAlpha = 1;
    });
    // While its paths run, the branch waits.
    pen.strokeStyle = this.colours.strong;
    branch.forks.forEach((paths, k) => {
      const from = this.#x(plan, this.#ends(branch.runs[k])[1]);
      const next = branch.runs[k + 1];
      const last = this.#rows.findIndex((row) => row.branch === paths.at(-1));
      const low = last * plan.height + plan.height / 2;
      pen.beginPath();
      pen.moveTo(from, middle);
      pen.lineTo(from, low);
      if (next) {
        const to = this.#x(plan, this.#ends(next)[0]);
        pen.moveTo(from, middle);
        pen.lineTo(to, middle);
        pen.lineTo(to, low);
      }
      pen.stroke();
    });
    if (!plan.labelled || this.#rows.length === 1) return;
    pen.font = '10px system-ui, sans-serif';
    pen.textAlign = 'left';
    pen.fillStyle = on ? this.colours.critical : this.colours.muted;
    const name = branch.parent ? branch.label : 'root';
    pen.fillText(name.slice(0, 7), 2 + Math.min(depth, 3) * 4, middle + 3.5, plan.left - 4 - Math.min(depth, 3) * 4);
  }

  #describe() {
    this.#described = this.#lastPaint;
    const { steps, paths, width, depth, tokens } = this.tree.counts();
    const longest = [...this.tree.criticalPath()].at(-1);
    this.canvas.setAttribute('aria-label',
      `Tree over time: ${count(tokens)} tokens in ${count(steps)} steps, ${count(paths)} paths, at most ${count(width)} ` +
      `side by side, ${count(depth)} deep; the critical path ends in path ${longest.label || 'root'}.`);
  }

  #point(event) {
    this.#choose(event && this.plan ? this.#rows[Math.floor(event.offsetY / this.plan.height)] ?? null : null);
  }

  #key(event) {
    if (!this.plan || event.ctrlKey || event.altKey || event.metaKey) return;
    const chosen = this.#rows.findIndex((row) => row.branch === this.#hover?.branch);
    if (event.key === 'Enter' && chosen >= 0) {
      event.preventDefault();
      this.onPick(this.#rows[chosen].branch);
    } else if (event.key in kKeys) {
      event.preventDefault();
      const next = chosen < 0 && kKeys[event.key] > 0 ? kKeys[event.key] - 1 : chosen + kKeys[event.key];
      this.#choose(this.#rows[Math.min(Math.max(next, 0), this.#rows.length - 1)]);
      announce(this.tip.textContent);
    }
  }

  #choose(row) {
    if (row) {
      const { branch } = row;
      const runs = branch.runs.map((run) => this.#ends(run));
      const [from, to] = [runs[0][0], runs.at(-1)[1]];
      const span = this.clock ? `${seconds(from)} to ${seconds(to)} s` : `steps ${count(from)} to ${count(to)}`;
      setText(this.tip, `${branch.parent ? `${branch.label} ${branch.outline}` : 'root'} · ${count(branch.tokens)} tokens · ${span}`);
    } else {
      setText(this.tip, '');
    }
    this.canvas.style.cursor = row?.branch.parent ? 'pointer' : '';
    if (this.#hover?.branch === row?.branch) return;
    this.#hover = row;
    this.#draw();
  }
}
