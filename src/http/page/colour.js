// Colours code. Prism splits it in a worker, which is ended where that takes too long: what a model writes may be made
// to make a regular expression run for minutes. The page only gets places and names, and puts text nodes into spans.
import { el, inSlices } from './dom.js';

const kMaxCode = 50_000; // characters; longer code stays plain
const kMaxMs = 2000; // for one piece
const kMaxFailures = 3;
const kKinds = new Set(['comment', 'string', 'number', 'keyword', 'function', 'type', 'inserted', 'deleted']);
const kPerSlice = 200; // parts put into the document at once

let worker = null;
let ready = false; // the worker has Prism
let failures = 0; // to start one
let asked = null; // {node, language, text, timer}: what the worker has
const waiting = [];

export function colour(node, language) {
  const text = node.textContent;
  if (!language || !text || text.length > kMaxCode) return;
  waiting.push({ node, language, text });
  askNext();
}

function askNext() {
  if (asked || !waiting.length || failures === kMaxFailures) return;
  if (!worker) startWorker();
  if (!ready) return;
  asked = waiting.shift();
  asked.timer = setTimeout(end, kMaxMs);
  worker.postMessage({ language: asked.language, text: asked.text });
}

function startWorker() {
  worker = new Worker(new URL('colour_worker.js', import.meta.url));
  worker.onmessage = ({ data }) => {
    if (!ready) {
      ready = true; // which it says first; loading it may take long on a busy machine
    } else {
      clearTimeout(asked.timer);
      if (data) show(asked.node, asked.text, data);
      asked = null;
    }
    askNext();
  };
  worker.onerror = () => {
    if (!ready) failures += 1;
    end();
  };
}

// The code that it was asked for stays as it is, and the next gets a worker of its own.
function end() {
  worker?.terminate();
  worker = null;
  ready = false;
  clearTimeout(asked?.timer);
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
