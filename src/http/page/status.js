// What the server does now: readiness, model, speed, load, pages. From /readyz, /v1/models, /version and /metrics.
import { ApiError, get } from './api.js';
import { el, colours, errorBox, count } from './dom.js';

const kEvery = 1000; // ms between looks
const kSeconds = 120; // that the chart shows

// Prometheus text as a map from name{labels but the model's} to a number.
export function parseMetrics(text) {
  const values = new Map();
  for (const line of text.split('\n')) {
    const match = /^([a-z_:]+)(?:\{([^}]*)\})? (\S+)$/i.exec(line);
    if (!match) continue;
    const labels = (match[2] ?? '').split(',').filter((label) => label && !label.startsWith('model_name='));
    values.set(labels.length ? `${match[1]}{${labels.join(',')}}` : match[1], Number(match[3]));
  }
  return values;
}

class Card {
  constructor(title, unit = '') {
    this.value = el('span.value', {}, '–');
    this.note = el('span.note');
    this.node = el('div.card', {}, el('h2', {}, title), el('p', {}, this.value, unit && el('span.unit', {}, unit)), this.note);
  }
  set(value, note = '') {
    this.value.textContent = value;
    this.note.textContent = note;
  }
}

export class StatusView {
  #timer = null;
  #last = null; // {at, tokens, steps}
  #rates = []; // tokens/s, newest last

  constructor(onState) {
    this.onState = onState;
    this.cards = {
      state: new Card('Server'), model: new Card('Model'), rate: new Card('Generated', ' tokens/s'), steps: new Card('Engine', ' steps/s'),
      requests: new Card('Requests running'), branches: new Card('Branches running'), forks: new Card('Forks'), cache: new Card('Prompt tokens from the cache'),
    };
    this.chart = el('canvas', { role: 'img', 'aria-label': 'Tokens a second over the last two minutes' });
    this.pages = el('div.pages', { role: 'img', 'aria-label': 'not known yet' });
    this.pagesText = el('p.note');
    this.notice = el('div');
    this.node = el('section.view.status.drawn', { 'aria-label': 'Status', hidden: true },
      el('h1.unseen', {}, 'Status'),
      this.notice,
      el('div.cards', {}, ...Object.values(this.cards).map((card) => card.node)),
      el('div.panel', {}, el('h2', {}, 'Tokens a second, last two minutes'), this.chart),
      el('div.panel', {}, el('h2', {}, 'Pages of the KV cache'), this.pages, this.pagesText));
  }

  // Looks while the view is shown.
  show(shown) {
    clearTimeout(this.#timer);
    if (shown) this.#look();
  }

  async state() {
    try {
      await get('readyz');
      return ['ready', ''];
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.status === 0) return ['unreachable', error.message];
      return [error.code === 'draining' ? 'draining' : 'loading', error.message];
    }
  }

  async #look() {
    const [state, message] = await this.state();
    this.onState(state);
    this.cards.state.set(state, message);
    try {
      if (state === 'ready') {
        const [models, version] = await Promise.all([get('v1/models').then(JSON.parse), get('version').then(JSON.parse)]);
        const [model] = models.data;
        this.cards.model.set(model.id, `context ${count(model.max_model_len)} · version ${version.version}`);
      }
      const metrics = parseMetrics(await get('metrics'));
      this.#draw(metrics);
      if (state === 'ready') this.cards.state.set(state, `up ${this.#uptime(metrics)}`);
      this.notice.replaceChildren();
    } catch (error) {
      const apart = error.status === 404; // then only operators may ask for them
      this.notice.replaceChildren(apart ? el('p.note', {}, 'This server keeps its figures on a port of their own (--metrics-port).') : errorBox(error));
    }
    clearTimeout(this.#timer);
    if (!this.node.hidden) this.#timer = setTimeout(() => this.#look(), kEvery);
  }

  #uptime(metrics) {
    const minutes = Math.max(0, Date.now() / 1000 - metrics.get('process_start_time_seconds')) / 60;
    return minutes < 60 ? `${Math.floor(minutes)} min` : `${Math.floor(minutes / 60)} h ${Math.floor(minutes % 60)} min`;
  }

  #draw(metrics) {
    const of = (name) => metrics.get(`multiverse_${name}`) ?? 0;
    const now = { at: performance.now(), tokens: of('generation_tokens_total'), steps: of('engine_steps_total') };
    const last = this.#last;
    this.#last = now;
    if (last && now.at > last.at) {
      const dt = (now.at - last.at) / 1000;
      const rate = Math.max(0, now.tokens - last.tokens) / dt;
      this.#rates = [...this.#rates, rate].slice(-kSeconds);
      this.cards.rate.set(count(rate), `${count(now.tokens)} since the start`);
      this.cards.steps.set(count(Math.max(0, now.steps - last.steps) / dt), `${count(now.steps)} since the start`);
    }
    this.cards.requests.set(count(of('requests_running')), `${count(of('requests_waiting'))} waiting`);
    this.cards.branches.set(count(of('branches_running')), `${count(of('branches_waiting'))} waiting`);
    this.cards.forks.set(count(of('forks_total')), `${count(of('joins_total'))} joined · ${count(of('malformed_total'))} malformed tokens · ${count(of('preemptions_total'))} preemptions`);
    const asked = of('prefix_cache_query_tokens_total');
    this.cards.cache.set(asked ? `${Math.round((100 * of('prefix_cache_hit_tokens_total')) / asked)} %` : '–', `${count(asked)} looked up`);
    this.#drawPages(of);
    this.#drawChart();
  }

  #drawPages(of) {
    const [used, cached, free] = ['used', 'cached', 'free'].map((state) => of(`kv_blocks{state="${state}"}`));
    const shared = of('kv_blocks_shared');
    const parts = [['shared', shared], ['private', Math.max(0, used - shared)], ['cached', cached], ['free', free]];
    const total = Math.max(1, used + cached + free);
    this.pages.replaceChildren(...parts.map(([name, pages]) => {
      const part = el(`span.${name}`);
      part.style.flexGrow = String(pages / total);
      return part;
    }));
    const text = parts.map(([name, pages]) => `${count(pages)} ${name}`).join(' · ');
    this.pages.setAttribute('aria-label', text);
    this.pagesText.replaceChildren(...parts.map(([name, pages]) => el(`span.key.${name}`, {}, `${count(pages)} ${name}`)));
  }

  #drawChart() {
    const pixels = window.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = this.chart;
    if (!width) return;
    this.chart.width = width * pixels;
    this.chart.height = height * pixels;
    const pen = this.chart.getContext('2d');
    pen.scale(pixels, pixels);
    const { bar, muted } = colours();
    const most = Math.max(10, ...this.#rates);
    const x = (i) => width - (this.#rates.length - 1 - i) * (width / (kSeconds - 1));
    const y = (rate) => height - 4 - (rate / most) * (height - 20);
    pen.fillStyle = bar;
    pen.beginPath();
    pen.moveTo(x(0), height - 4);
    this.#rates.forEach((rate, i) => pen.lineTo(x(i), y(rate)));
    pen.lineTo(width, height - 4);
    pen.fill();
    pen.fillStyle = muted;
    pen.font = '11px system-ui, sans-serif';
    pen.fillText(`${count(most)} at most`, 4, 12);
  }
}
