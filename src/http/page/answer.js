// One answer: its request, its stream, its tree on the page, and what can be done with it.
import { ApiError, streamChat } from './api.js';
import { announce, el, button, copyButton, errorBox, setText, count, seconds, plural } from './dom.js';
import { AnswerView } from './lanes.js';
import { Rail } from './rail.js';
import { Tree } from './tree.js';

// The body of a request for `messages` under the page's settings.
export function requestBody(messages, settings) {
  const body = { messages, stream_options: { include_usage: true, include_branches: true } };
  for (const name of ['temperature', 'top_p', 'max_tokens', 'seed']) {
    if (settings[name] !== null && settings[name] !== undefined) body[name] = settings[name];
  }
  body.multiverse = { mode: settings.mode };
  for (const name of ['max_running_paths', 'structure']) {
    if (settings[name] !== null && settings[name] !== undefined) body.multiverse[name] = settings[name];
  }
  return body;
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

export function asCurl(body) {
  const url = new URL('v1/chat/completions', document.baseURI);
  const { stream_options, ...rest } = body;
  return `curl -s ${quoted(String(url))} -H 'Content-Type: application/json' -H "Authorization: Bearer $API_KEY" \\\n` +
    `  -d ${quoted(JSON.stringify(rest))}`;
}

export class Answer {
  #abort = new AbortController();
  #timer = null;
  #forked = false;
  #shownTokens = 0; // of the text

  // `body`: of the request. `tree` and the rest: of an answer that is complete already.
  constructor(body, { saved = null, clock = false, actions = [] } = {}) {
    this.body = body;
    this.tree = saved ? Tree.fromJSON(saved.tree) : new Tree();
    this.content = saved?.content ?? '';
    this.usage = saved?.usage ?? null;
    this.finish = saved?.finish_reason ?? null;
    this.error = saved?.error ? new ApiError(saved.error.status, saved.error.message, saved.error) : null;
    this.ms = saved?.ms ?? 0;
    this.firstMs = saved?.first_ms ?? null;
    this.running = false;
    this.view = new AnswerView(this.tree);
    this.rail = new Rail(this.tree, { clock, onPick: (branch) => this.view.lanes.get(branch)?.reveal() });
    this.raw = el('pre.raw-text', { hidden: true, tabindex: '0', 'aria-label': 'The answer as text' });
    this.meta = el('p.meta');
    this.problem = el('div');
    this.stopButton = button('Stop', () => this.stop());
    this.textButton = button('Text', () => this.#showText(this.raw.hidden), { 'aria-pressed': 'false' });
    this.tools = el('div.tools', {}, this.stopButton, this.textButton, copyButton('Copy', () => this.content),
      copyButton('Copy as curl', () => asCurl(this.body)), ...actions);
    this.split = el('div.split', {}, el('div.text', {}, this.view.node, this.raw), this.rail.node);
    this.node = el('article.turn', { 'aria-label': 'Answer' },
      el('div.answer-head', {}, this.meta, this.tools), this.problem, this.split);
    this.tree.onChange = (branch) => {
      this.view.touch(branch);
      this.rail.changed();
    };
    if (saved) this.#show();
  }

  // Asks, and resolves when the answer is there, stopped or failed; never throws.
  async run() {
    const start = performance.now();
    this.running = true;
    this.rail.live = true;
    this.#timer = setInterval(() => this.#tick(performance.now() - start), 100);
    this.#tick(0);
    announce('The answer is being written');
    try {
      await streamChat(this.body, this.#abort.signal, (chunk) => this.#take(chunk, performance.now() - start));
    } catch (error) {
      if (error.name === 'AbortError') this.finish = 'stopped';
      else this.error = error instanceof ApiError ? error : new ApiError(0, String(error.message));
    }
    clearInterval(this.#timer);
    this.running = false;
    this.rail.live = false;
    this.#tick(performance.now() - start);
    this.#show();
    this.#announceEnd();
  }

  stop() {
    this.#abort.abort();
  }

  #take(chunk, now) {
    if (chunk.branch) {
      if (chunk.branch.event === 'token') this.firstMs ??= now;
      this.tree.add(chunk.branch, now);
      if (chunk.branch.event === 'fork' && !this.#forked) announce('The paths run');
      this.#forked ||= chunk.branch.event === 'fork';
    }
    const choice = chunk.choices?.[0];
    if (choice?.delta?.content) this.content += choice.delta.content;
    if (choice?.finish_reason) this.finish = choice.finish_reason;
    if (chunk.usage) this.usage = chunk.usage;
  }

  #tick(ms) {
    this.ms = ms;
    this.#describe();
    if (!this.raw.hidden && this.tree.tokens !== this.#shownTokens) this.#drawText();
    this.onTick?.();
  }

  get parallel() {
    return this.usage?.completion_tokens_details?.parallel ?? null;
  }
  get tokens() {
    return this.usage?.completion_tokens ?? this.tree.tokens;
  }

  // Tokens a second after the first one; 0 where there is too little to tell.
  get rate() {
    return this.firstMs !== null && this.ms > this.firstMs + 50 ? (1000 * this.tokens) / (this.ms - this.firstMs) : 0;
  }

  #describe() {
    const counts = this.parallel ?? this.tree.counts();
    const { rate } = this;
    const facts = [
      [`${seconds(this.ms)} s`, 'since the question was sent'],
      [plural(this.tokens, 'token'), 'of all branches'],
      rate > 0 && [`${count(rate)} tokens/s`, 'after the first'],
      [plural(counts.steps, 'step'), 'the passes that it took at least: drawn tokens on the longest chain'],
      counts.steps > 0 && counts.paths > 0 && [`${(this.tokens / counts.steps).toFixed(2)} tokens a step`, ''],
      this.parallel && [`critical path ${count(this.parallel.critical_path_tokens)}`, 'tokens on the longest chain'],
      counts.paths > 0 && [plural(counts.paths, 'path'), ''],
      this.parallel?.malformed > 0 && [`${count(this.parallel.malformed)} malformed`, 'control tokens without a place'],
      this.finish === 'length' && ['cut at the token limit', 'finish_reason: length'],
      this.finish === 'stopped' && ['stopped', 'the request was cancelled'],
    ].filter(Boolean);
    if (this.meta.childElementCount === facts.length) {
      facts.forEach(([text], i) => {
        setText(this.meta.children[i], text);
      });
    } else {
      this.meta.replaceChildren(...facts.map(([text, title]) => el('span', { title }, text)));
    }
  }

  #showText(show) {
    this.raw.hidden = !show;
    this.view.node.hidden = show;
    this.textButton.setAttribute('aria-pressed', String(show));
    if (show) this.#drawText();
  }

  #drawText() {
    this.#shownTokens = this.tree.tokens;
    this.raw.textContent = this.running || this.finish === 'stopped' ? this.tree.text() : this.content;
  }

  #show() {
    this.stopButton.hidden = true;
    this.view.finish();
    this.rail.changed();
    this.#describe();
    if (!this.raw.hidden) this.#drawText();
    this.split.hidden = this.error !== null && this.tree.tokens === 0;
    this.problem.replaceChildren(...(this.error ? [errorBox(this.error)] : []));
  }

  #announceEnd() {
    if (this.error) return; // which is an alert
    const paths = this.parallel?.paths ? ` in ${plural(this.parallel.paths, 'path')}` : '';
    announce(`The answer is ${this.finish === 'stopped' ? 'stopped' : 'complete'}: ${plural(this.tokens, 'token')}${paths}`);
  }

  toJSON() {
    const error = this.error && { ...this.error, message: this.error.message };
    return {
      content: this.content, tree: this.tree, usage: this.usage, finish_reason: this.finish, error,
      ms: this.ms, first_ms: this.firstMs,
    };
  }
}
