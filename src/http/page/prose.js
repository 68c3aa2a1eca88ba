// A model's text, drawn while it is written: paragraphs, lists, headings, code, formulas. Each line is drawn once, when
// it is complete; the unfinished one is plain text. So a frame costs what is new in it, not what is there already.
import { colour } from './colour.js';
import { el, inSlices } from './dom.js';

const kMaxLine = 3000; // characters; longer ones stay as written: looking for what is not there costs their square
const kMaxFormula = 2000; // characters; longer ones stay as written
const kMaxDisplayLines = 60; // after which an opened $$ was none
const kInline = new RegExp(
  [
    /`([^`\n]+)`/, // 1 code
    /\$\$(.+?)\$\$|\\\[(.+?)\\\]/, // 2, 3 display
    /\\\((.+?)\\\)|\$(?![\s$])([^$\n]*[^$\s\\])\$(?!\d)/, // 4, 5 inline
    /\*\*(?!\s)([^*\n]+)\*\*/, // 6 bold
  ].map((part) => part.source).join('|'), 'g');

let katex = null; // a promise of it, once a formula has been seen
function loadKatex() {
  return new Promise((resolve) => {
    const script = el('script', { src: new URL('katex.js', import.meta.url) });
    script.onload = () => resolve(window.katex);
    script.onerror = () => resolve(null);
    document.head.append(script);
  });
}

function drawFormula(library, node, source, displayMode) {
  const target = document.createElement('span');
  try {
    library.render(source, target, {
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
    katex ??= loadKatex();
    katex.then((library) => library && inSlices(() => drawFormula(library, node, source, display)));
  }
  return node;
}

function inlineNodes(line) {
  if (line.length > kMaxLine) return [line];
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
  #language = ''; // what the fence says
  #display = null; // lines of an open display formula
  #empty = 0;
  #open = null; // a line that goes on after something of ours

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

  // Something of ours between the text, in the line that is being written.
  insert(node) {
    const begun = this.#tail !== '';
    this.finish();
    const line = this.node.lastElementChild;
    this.#open ??= begun && line?.matches('.line') ? line : this.node.appendChild(el('div.line'));
    this.#open.append(node);
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
      this.#tailLine = el(this.#open ? 'span.tail' : 'div.line.tail', {}, this.#tailNode);
      (this.#open ?? this.node).append(this.#tailLine);
    }
    const shown = this.#tailNode.data;
    if (this.#tail.startsWith(shown)) this.#tailNode.appendData(this.#tail.slice(shown.length));
    else this.#tailNode.data = this.#tail;
  }

  #line(line) {
    this.#tailLine?.remove();
    this.#tailLine = null;
    if (this.#open) {
      this.#open.append(...inlineNodes(line));
      this.#open = null;
      return;
    }
    const fence = /^\s*```\s*([\w+#-]*)/.exec(line);
    if (fence) {
      this.#fence(fence[1]);
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

  #fence(language) {
    if (this.#code) {
      colour(this.#code, this.#language);
      this.#code = null;
    } else {
      this.#language = language.toLowerCase();
      this.#code = el('code');
      this.node.append(el('pre', { tabindex: '0', role: 'region', 'aria-label': `Code ${language}`.trim() }, this.#code));
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
