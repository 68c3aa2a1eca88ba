// Small helpers. Text reaches the document as text nodes only; nothing is ever parsed as HTML.

// el('button.plain', {type: 'button', onclick: f}, 'Text', child…)
export function el(name, attributes = {}, ...children) {
  const [tag, ...classes] = name.split('.');
  const node = document.createElement(tag);
  if (classes.length) node.className = classes.join(' ');
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith('on')) node[key] = value;
    else node.setAttribute(key, value === true ? '' : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const button = (text, onclick, attributes = {}) =>
  el('button', { type: 'button', onclick, ...attributes }, text);

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// For those who hear the page: said when the reader pauses. Not for what changes all the time.
export const announce = (text) => setText(document.getElementById('announcer'), text);

// Does pieces of work, each of a few milliseconds at most, in order and in slices, so that the browser can draw and answer
// between them.
const kSliceMs = 8;
const pieces = [];
let sliceDue = false;
export function inSlices(work) {
  pieces.push(work);
  askForSlice();
}
function askForSlice() {
  if (sliceDue || !pieces.length) return;
  sliceDue = true;
  setTimeout(doSlice);
}
function doSlice() {
  sliceDue = false;
  const stop = performance.now() + kSliceMs;
  try {
    do pieces.shift()();
    while (pieces.length && performance.now() < stop);
  } finally {
    askForSlice();
  }
}

// The style's colours, for what is drawn by hand. Asking for them lays out the document, so they are kept until they change.
const kColours = ['bar', 'critical', 'live', 'muted'];
let known = null;
export function colours() {
  if (!known) {
    const style = getComputedStyle(document.documentElement);
    const of = (name) => style.getPropertyValue(`--${name}`).trim();
    known = { ...Object.fromEntries(kColours.map((name) => [name, of(name)])), strong: of('line-strong') };
  }
  return known;
}
export function themeChanged() {
  known = null;
  for (const node of document.querySelectorAll('.drawn')) node.dispatchEvent(new Event('theme'));
}
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', themeChanged);

// Calls `draw` once in the next frame, however often it is asked for.
export function perFrame(draw) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
    });
  };
}

export async function copyText(text) {
  if (navigator.clipboard) {
    try {
      return await navigator.clipboard.writeText(text);
    } catch {
      // refused: the old way may still work
    }
  }
  const area = el('textarea', { 'aria-hidden': 'true' });
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand('copy');
  area.remove();
}

// A button that copies, and says so for a moment.
export function copyButton(label, text) {
  const node = button(label, async () => {
    await copyText(text());
    node.textContent = 'Copied';
    setTimeout(() => (node.textContent = label), 1200);
  });
  return node;
}

export function download(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: 'application/json' }));
  el('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

export function errorBox(error) {
  const advice = error.advice ?? '';
  return el('div.error', { role: 'alert' },
    el('strong', {}, error.status ? `Error ${error.status}` : 'Error'),
    el('code', {}, error.message),
    advice && el('p', {}, advice));
}

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
export const count = (value) => whole.format(value);
export const seconds = (ms) => (ms < 10_000 ? (ms / 1000).toFixed(2) : (ms / 1000).toFixed(1));
export const plural = (n, one) => `${count(n)} ${one}${n === 1 ? '' : 's'}`;
