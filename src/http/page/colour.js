// Colours code. Prism splits it in a worker, which is ended where that takes too long: what a model writes may be made
// to make a regular expression run for minutes. The page only gets places and names, and puts text nodes into spans.
import { el, inSlices } from './dom.js';

const kMaxCode = 50_000; // characters; longer code stays plain
const kMaxMs = 2000; // for one piece
const kKinds = new Set(['comment', 'string', 'number', 'keyword', 'function', 'type', 'inserted', 'deleted']);
const kPerSlice = 200; // parts put into the document at once

let worker = null;
let asked = null; // {node, language, text, timer}: what the worker has
const waiting = [];

export function colour(node, language) {
  const text = node.textContent;
  if (!language || !text || text.length > kMaxCode) return;
  waiting.push({ node, language, text });
  askNext();
}

function askNext() {
  if (asked || !waiting.length) return;
  worker ??= startWorker();
  asked = waiting.shift();
  asked.timer = setTimeout(giveUp, kMaxMs);
  worker.postMessage({ language: asked.language, text: asked.text });
}

function startWorker() {
  const one = new Worker(new URL('colour_worker.js', import.meta.url));
  one.onmessage = ({ data }) => {
    const { node, text, timer } = asked;
    clearTimeout(timer);
    asked = null;
    if (data) show(node, text, data);
    askNext();
  };
  one.onerror = giveUp;
  return one;
}

// The code stays as it is, and the next one gets a worker of its own.
function giveUp() {
  worker?.terminate();
  worker = null;
  if (asked) clearTimeout(asked.timer);
  asked = null;
  askNext();
}

// `parts`: [kind or '', length], in order, of the whole text.
function show(node, text, parts) {
  const coloured = document.createDocumentFragment();
  let at = 0;
  for (let from = 0; from < parts.length; from += kPerSlice) {
    inSlices(() => {
      for (const [kind, length] of parts.slice(from, from + kPerSlice)) {
        const part = text.slice(at, (at += length));
        coloured.append(kKinds.has(kind) ? el(`span.${kind}`, {}, part) : part);
      }
    });
  }
  inSlices(() => at === text.length && node.replaceChildren(coloured));
}
