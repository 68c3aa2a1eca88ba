// A model's text, drawn while it is written: paragraphs, lists, headings, code, formulas. Each line is drawn once, when
// it is complete; the unfinished one is plain text. So a frame costs what is new in it, not what is there already.
import { el } from './dom.js';

const kMaxFormula = 2000; // characters; longer ones stay as written
const kMaxDisplayLines = 60; // after which an opened $$ was none
const kInline = new RegExp(
  [
    /`([^`\n]+)`/, // 1 code
    /\$\$(.+?)\$\$|\\\[(.+?)\\\]/, // 2, 3 display
    /\\\((.+?)\\\)|\$(?![\s$])([^$\n]*[^$\s\\])\$(?!\d)/, // 4, 5 inline
    /\*\*(?!\s)([^*\n]+)\*\*/, // 6 bold
  ].map((part) => part.source).join('|'), 'g');

let katexLoading = null;
function loadKatex() {
  katexLoading ??= new Promise((resolve) => {
    const script = el('script', { src: new URL('katex.js', import.meta.url) });
    script.onload = () => resolve(window.katex);
    script.onerror = () => resolve(null);
    document.head.append(script);
  });
  return katexLoading;
}

// Formulas wait in a queue, so that no frame has to draw many of them.
const waiting = [];
let drawing = false;
async function drawFormulas() {
  if (drawing) return;
  drawing = true;
  const katex = await loadKatex();
  while (katex && waiting.length) {
    const stop = performance.now() + 8;
    while (waiting.length && performance.now() < stop) drawFormula(katex, ...waiting.shift());
    await new Promise((resolve) => setTimeout(resolve));
  }
  drawing = false;
}

function drawFormula(katex, node, source, displayMode) {
  const target = document.createElement('span');
  try {
    katex.render(source, target, {
      displayMode, output: 'mathml', throwOnError: true, strict: 'ignore', trust: false, maxSize: 20, maxExpand: 200,
    });
    node.replaceChildren(target);
    node.classList.remove('raw');
  } catch (error) {
    node.title = error.message; // the source stays
  }
}

function formula(source, written, display) {
  const node = el(display ? 'span.formula.display.raw' : 'span.formula.raw', {}, written);
  if (source.length <= kMaxFormula) {
    waiting.push([node, source, display]);
    drawFormulas();
  }
  return node;
}

function inlineNodes(line) {
  const nodes = [];
  let from = 0;
  for (const match of line.matchAll(kInline)) {
    if (match.index > from) nodes.push(line.slice(from, match.index));
    from = match.index + match[0].length;
    const display = match[2] ?? match[3];
    const inline = match[4] ?? match[5];
    if (match[1] !== undefined) nodes.push(el('code', {}, match[1]));
    else if (match[6] !== undefined) nodes.push(el('strong', {}, ...inlineNodes(match[6])));
    else nodes.push(formula(display ?? inline, match[0], display !== undefined));
  }
  if (from < line.length) nodes.push(line.slice(from));
  return nodes;
}

export class Prose {
  #tail = ''; // the unfinished line
  #tailNode = document.createTextNode('');
  #tailLine = null;
  #code = null; // the <code> of an open fence
  #display = null; // lines of an open display formula
  #empty = 0;

  constructor() {
    this.node = el('div.prose');
    this.hasText = false;
  }

  add(text) {
    const lines = (this.#tail + text).split('\n');
    this.#tail = lines.pop();
    for (const line of lines) this.#line(line);
    this.#drawTail();
    this.hasText ||= /\S/.test(text);
  }

  // No more is coming.
  finish() {
    if (this.#tail) this.#line(this.#tail);
    this.#tail = '';
    this.#drawTail();
    if (this.#display) this.#giveUpDisplay();
  }

  // Something of ours between the text.
  insert(node) {
    this.finish();
    this.node.append(node);
    this.hasText = true;
  }

  #drawTail() {
    if (!this.#tail) {
      this.#tailLine?.remove();
      this.#tailLine = null;
      return;
    }
    if (!this.#tailLine) {
      this.#tailNode = document.createTextNode('');
      this.#tailLine = el('div.line.tail', {}, this.#tailNode);
      this.node.append(this.#tailLine);
    }
    const shown = this.#tailNode.data;
    if (this.#tail.startsWith(shown)) this.#tailNode.appendData(this.#tail.slice(shown.length));
    else this.#tailNode.data = this.#tail;
  }

  #line(line) {
    this.#tailLine?.remove();
    this.#tailLine = null;
    if (/^\s*```/.test(line)) {
      this.#code = this.#code ? null : this.node.appendChild(el('pre', { tabindex: '0' }, el('code'))).firstChild;
    } else if (this.#code) {
      this.#code.append(`${line}\n`);
    } else if (this.#display) {
      this.#continueDisplay(line);
    } else if (/^\s*(\$\$|\\\[)/.test(line) && !/(\$\$|\\\])\s*[.,]?\s*$/.test(line.trim().slice(2))) {
      this.#display = [line];
    } else if (!line.trim()) {
      this.#empty += 1;
    } else {
      this.#text(line);
    }
  }

  #continueDisplay(line) {
    this.#display.push(line);
    const written = this.#display.join('\n');
    if (/(\$\$|\\\])\s*[.,]?\s*$/.test(line)) {
      const source = written.trim().replace(/^(\$\$|\\\[)/, '').replace(/(\$\$|\\\])\s*[.,]?$/, '');
      this.node.append(formula(source, written, true));
      this.#display = null;
    } else if (this.#display.length > kMaxDisplayLines) {
      this.#giveUpDisplay();
    }
  }

  #giveUpDisplay() {
    const lines = this.#display;
    this.#display = null;
    for (const line of lines) this.#text(line);
  }

  #text(line) {
    const heading = /^#{1,6}\s+(.*)/.exec(line);
    const item = /^\s*(?:[-*•])\s+(.*)/.exec(line);
    const name = heading ? 'div.line.heading' : item ? 'div.line.item' : 'div.line';
    const node = el(name, {}, ...inlineNodes((heading ?? item)?.[1] ?? line));
    if (this.#empty && this.node.firstChild) node.classList.add('apart');
    this.#empty = 0;
    this.node.append(node);
  }
}
