// The page: views, the key, the theme.
import { ApiError, apiKey, get } from './api.js';
import { AskView } from './ask.js';
import { el, setText, themeChanged } from './dom.js';
import { RaceView } from './race.js';
import { StatusView } from './status.js';
import { TraceView } from './trace.js';

const kTheme = 'multiverse.theme';
const kThemes = ['auto', 'light', 'dark'];
const byId = (id) => document.getElementById(id);

function setTheme(theme) {
  if (theme === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  byId('theme').replaceChildren(el('span.wide', {}, 'Theme: '), theme);
  byId('theme').setAttribute('aria-label', `Theme: ${theme}`);
  byId('theme').title = 'Colours: as the system has them, light or dark';
  localStorage.setItem(kTheme, theme);
  themeChanged();
}

function setUpTheme() {
  const saved = localStorage.getItem(kTheme);
  setTheme(kThemes.includes(saved) ? saved : 'auto');
  byId('theme').onclick = () => {
    const now = kThemes.indexOf(document.documentElement.dataset.theme ?? 'auto');
    setTheme(kThemes[(now + 1) % kThemes.length]);
  };
}

function setUpHelp() {
  byId('help').onclick = () => byId('help-dialog').showModal();
  byId('skip').onclick = () => {
    const { node } = views[asked()];
    (node.querySelector('textarea') ?? node.querySelector('button'))?.focus();
  };
}

function setUpKey() {
  const dialog = byId('key-dialog');
  const field = byId('key-field');
  const show = () => (byId('key').textContent = apiKey.get() ? 'Key set' : 'Key');
  byId('key').onclick = () => {
    field.value = apiKey.get();
    dialog.showModal();
  };
  byId('key-cancel').onclick = () => dialog.close();
  byId('key-form').onsubmit = (event) => {
    event.preventDefault();
    apiKey.set(field.value.trim());
    dialog.close();
    show();
    refresh();
  };
  show();
}

function setState(state, title = '') {
  setText(byId('state'), state); // a live region: only what is new
  byId('state').dataset.state = state;
  byId('state').title = title;
}

// Who is served, and whether it can be asked. Comes back until it can.
let refreshTimer = null;
async function refresh() {
  clearTimeout(refreshTimer);
  const [state, message] = await views.status.state();
  setState(state, message);
  try {
    if (state === 'ready') byId('model').textContent = JSON.parse(await get('v1/models')).data[0].id;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    setState(error.status === 401 ? 'key wanted' : 'error', error.message);
  }
  refreshTimer = setTimeout(refresh, state === 'ready' ? 15_000 : 1500);
}

const views = { ask: new AskView(), race: new RaceView(), trace: new TraceView(), status: new StatusView(setState) };

function open(name) {
  for (const [key, view] of Object.entries(views)) {
    view.node.hidden = key !== name;
    byId(`open-${key}`).toggleAttribute('aria-current', key === name);
  }
  views.status.show(name === 'status');
  document.title = name === 'ask' ? 'Multiverse' : `${name[0].toUpperCase()}${name.slice(1)} · Multiverse`;
}

const asked = () => (location.hash.slice(1) in views ? location.hash.slice(1) : 'ask');

byId('main').append(...Object.values(views).map((view) => view.node));
window.addEventListener('hashchange', () => open(asked()));
// Escape stops what runs.
window.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape' || document.querySelector('dialog[open]')) return;
  if (!views.ask.node.hidden) views.ask.running?.answer.stop();
  if (!views.race.node.hidden && views.race.running) views.race.stop();
});
setUpTheme();
setUpKey();
setUpHelp();
open(asked());
refresh();
if (asked() === 'ask') views.ask.question.focus({ preventScroll: true });
