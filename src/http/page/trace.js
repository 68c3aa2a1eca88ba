// Look at a trace: recorded texts as trees. The server reads them (POST /inspect), so that there is one reader only.
import { post } from './api.js';
import { el, button, errorBox, count, plural } from './dom.js';
import { AnswerView } from './lanes.js';
import { Rail } from './rail.js';
import { Tree } from './tree.js';

const kMaxFile = 64 * 1024 * 1024; // bytes
const kMaxTexts = 1000; // of one file
const kColumns = [
  ['tokens', 'Tokens'], ['critical_path_tokens', 'Critical path'], ['ratio', 'Ratio'], ['steps', 'Steps'], ['blocks', 'Blocks'],
  ['paths', 'Paths'], ['max_width', 'Width'], ['max_depth', 'Depth'], ['malformed', 'Malformed'],
];

// JSON lines with "completion" where the first line is an object, else one text: as `multiverse inspect` reads a file.
export function splitTexts(name, content) {
  const texts = [];
  for (const [number, line] of content.split('\n').entries()) {
    if (!line) continue;
    let object = null;
    try {
      object = JSON.parse(line);
    } catch {
      // a plain text
    }
    const isObject = object !== null && typeof object === 'object' && !Array.isArray(object);
    if (texts.length === 0 && !isObject) return [{ name, text: content }];
    if (!isObject || typeof object.completion !== 'string') {
      throw new Error(`${name}:${number + 1} is not a JSON object with a string "completion"`);
    }
    texts.push({ name: typeof object.id === 'string' ? object.id : `${name}:${number + 1}`, text: object.completion });
  }
  if (texts.length > kMaxTexts) throw new Error(`${name} has ${texts.length} texts; at most ${kMaxTexts} are shown`);
  return texts.length ? texts : [{ name, text: content }];
}

export class TraceView {
  #turn = 0; // of the file being read

  constructor() {
    this.file = el('input', { type: 'file', 'aria-label': 'Trace file' });
    this.file.onchange = () => this.#readFile(this.file.files[0]);
    this.paste = el('textarea', { rows: '1', placeholder: 'or paste a text here', 'aria-label': 'Text to look at' });
    this.notice = el('div');
    this.rows = el('tbody');
    this.table = el('table', { hidden: true },
      el('thead', {}, el('tr', {}, el('th', { scope: 'col' }, 'Text'), ...kColumns.map(([, title]) => el('th', { scope: 'col' }, title)))),
      this.rows);
    this.shown = el('div');
    this.node = el('section.view.trace', { 'aria-label': 'Trace', hidden: true },
      el('h1.unseen', {}, 'Trace'),
      el('div.drop', {}, el('p', {}, 'Drop a file here: a text, or JSON lines with a field ', el('code', {}, 'completion'), '.'),
        el('div.line', {}, this.file, button('Examples', () => this.#example()), this.paste,
          button('Look', () => this.show('text', this.paste.value)))),
      this.notice, el('div.scroller', { tabindex: '0', role: 'region', 'aria-label': 'Texts' }, this.table), this.shown);
    this.node.ondragover = (event) => {
      event.preventDefault();
      this.node.classList.add('over');
    };
    this.node.ondragleave = () => this.node.classList.remove('over');
    this.node.ondrop = (event) => {
      event.preventDefault();
      this.node.classList.remove('over');
      this.#readFile(event.dataTransfer.files[0]);
    };
  }

  async #example() {
    const response = await fetch(new URL('examples.jsonl', import.meta.url));
    await this.show('examples.jsonl', await response.text());
  }

  async #readFile(file) {
    if (!file) return;
    if (file.size > kMaxFile) return this.#fail(new Error(`${file.name} has ${file.size} bytes; at most ${kMaxFile} are read`));
    await this.show(file.name, await file.text());
  }

  #fail(error) {
    this.notice.replaceChildren(errorBox(error));
  }

  // Reads all texts one after the other, and shows the first.
  async show(name, content) {
    const turn = ++this.#turn;
    this.notice.replaceChildren();
    this.rows.replaceChildren();
    this.shown.replaceChildren();
    this.table.hidden = true;
    if (!content.trim()) return this.#fail(new Error('there is no text to look at'));
    try {
      const texts = splitTexts(name, content);
      for (const [i, text] of texts.entries()) {
        const report = await post('inspect', { text: text.text });
        if (turn !== this.#turn) return;
        this.#addRow(text, report);
        if (i === 0) this.#open(text, report, this.rows.firstChild);
        this.notice.textContent = i + 1 < texts.length ? `${i + 1} of ${texts.length} read …` : '';
      }
    } catch (error) {
      if (turn === this.#turn) this.#fail(error);
    }
  }

  #addRow(text, report) {
    const values = { ...report, ratio: (report.tokens / Math.max(report.critical_path_tokens, 1)).toFixed(2) };
    const row = el('tr');
    const open = button(text.name, () => this.#open(text, report, row));
    row.append(el('th', { scope: 'row' }, open),
      ...kColumns.map(([key]) => el(key === 'malformed' && values[key] > 0 ? 'td.bad' : 'td', {},
        typeof values[key] === 'number' ? count(values[key]) : values[key])));
    this.rows.append(row);
    this.table.hidden = false;
  }

  #open(text, report, row) {
    for (const other of this.rows.children) other.removeAttribute('aria-current');
    row.setAttribute('aria-current', 'true');
    const tree = Tree.fromReport(report);
    const view = new AnswerView(tree);
    const rail = new Rail(tree, { canSwitch: false, onPick: (branch) => view.lanes.get(branch)?.reveal() });
    const raw = el('pre.raw-text', { hidden: true, tabindex: '0', 'aria-label': 'The text' }, text.text);
    const asText = button('Text', () => {
      raw.hidden = !raw.hidden;
      view.node.hidden = !raw.hidden;
      asText.setAttribute('aria-pressed', String(!raw.hidden));
    }, { 'aria-pressed': 'false' });
    const ratio = (report.tokens / Math.max(report.critical_path_tokens, 1)).toFixed(2);
    this.shown.replaceChildren(el('article.turn', { 'aria-label': 'Tree' },
      el('div.answer-head', {},
        el('p.meta', {}, el('strong', {}, text.name), ...[plural(report.tokens, 'token'), `critical path ${count(report.critical_path_tokens)}`,
          `${ratio} tokens a step of it`, `${plural(report.blocks, 'block')}, ${plural(report.paths, 'path')}`,
          `${count(report.max_width)} wide, ${count(report.max_depth)} deep`].map((fact) => el('span', {}, fact))),
        el('div.tools', {}, asText)),
      this.#malformed(report), el('div.split', {}, el('div.text', {}, view.node, raw), rail.node)));
    view.finish();
    rail.changed();
  }

  #malformed(report) {
    if (!report.malformed) return '';
    const places = report.malformed_at.map(({ text, place }) => el('li', {}, el('code', {}, text), ` ${place}`));
    return el('details.malformed-list', {},
      el('summary', {}, `${plural(report.malformed, 'control token')} without a place in the grammar, marked below`), el('ol', {}, ...places));
  }
}
