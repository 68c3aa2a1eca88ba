// The same question in parallel and serially, side by side.
import { Answer, requestBody } from './answer.js';
import { el, button, count, seconds } from './dom.js';
import { kExamples } from './examples.js';
import { Settings } from './settings.js';

const kSameMachine = ['localhost', '127.0.0.1', '[::1]'].includes(location.hostname);

class Lane {
  constructor(mode) {
    this.mode = mode;
    this.clock = el('span.clock', {}, '0.00 s');
    this.facts = el('span.facts');
    this.place = el('div');
    this.node = el('section.racer', { 'aria-label': mode }, el('header', {}, el('h2', {}, mode), this.clock, this.facts), this.place);
  }

  prepare(question, settings) {
    const messages = [...(settings.system ? [{ role: 'system', content: settings.system }] : []), { role: 'user', content: question }];
    const body = requestBody(messages, { ...settings, mode: this.mode });
    body.cache_salt = `race ${this.mode} ${crypto.getRandomValues(new Uint32Array(1))[0]}`; // neither finds the other's prompt
    this.answer = new Answer(body, { clock: true });
    this.answer.onTick = () => this.tick();
    this.place.replaceChildren(this.answer.node);
    this.clock.textContent = 'waits';
    this.facts.textContent = '';
  }

  async run() {
    await this.answer.run();
    const { parallel, ms, firstMs, tokens } = this.answer;
    if (parallel) this.times.push({ ms, first: firstMs ?? 0, writing: ms - (firstMs ?? 0), steps: parallel.steps, tokens });
  }

  // Of the rounds.
  median(of) {
    const sorted = this.times.map(of).sort((a, b) => a - b);
    return (sorted[Math.floor((sorted.length - 1) / 2)] + sorted[Math.ceil((sorted.length - 1) / 2)]) / 2;
  }

  tick() {
    const { answer } = this;
    this.clock.textContent = `${seconds(answer.ms)} s`;
    const critical = answer.parallel ? ` · critical path ${count(answer.parallel.critical_path_tokens)}` : '';
    const rate = answer.rate ? ` · ${count(answer.rate)} tokens/s` : '';
    this.facts.textContent = `${count(answer.tokens)} tokens${rate}${critical}`;
    this.onTick();
  }
}

export class RaceView {
  constructor() {
    this.lanes = [new Lane('parallel'), new Lane('serial')];
    for (const lane of this.lanes) lane.onTick = () => this.#align();
    this.question = el('textarea', { rows: '2', 'aria-label': 'Question of the race' });
    this.question.value = kExamples[1][1];
    this.settings = new Settings({ modes: false });
    this.together = el('input', { type: 'checkbox' });
    this.rounds = el('input', { type: 'number', min: 1, max: 20, step: 1, value: 3, required: true });
    this.startButton = el('button.primary', { type: 'submit' }, 'Race');
    this.stopButton = button('Stop', () => this.stop());
    this.stopButton.hidden = true;
    this.result = el('p.result', { role: 'status' });
    this.explanation = el('section.explanation', { 'aria-label': 'What was measured' });
    this.node = el('section.view.race', { 'aria-label': 'Race', hidden: true },
      el('h1.unseen', {}, 'Race'),
      el('form.composer', { onsubmit: (event) => { event.preventDefault(); this.run(); } },
        el('div.line', {}, this.question, this.startButton, this.stopButton), this.settings.node,
        el('div.settings', {},
          el('label', { title: 'How often both are asked, in turns; the medians count' }, 'Rounds', this.rounds),
          el('label.check', { title: 'Both share the machine then, so the clocks say less' }, this.together,
            'Both at once (else one after the other, each alone on the clock)'))),
      this.result, this.explanation, el('div.racers', {}, ...this.lanes.map((lane) => lane.node)));
  }

  stop() {
    this.stopped = true;
    for (const lane of this.lanes) lane.answer?.stop();
  }

  async run() {
    const settings = this.settings.read();
    if (!settings || !this.question.value.trim() || !this.rounds.reportValidity() || this.running) return;
    this.#running(true);
    this.explanation.replaceChildren();
    for (const lane of this.lanes) lane.times = [];
    const rounds = Number(this.rounds.value);
    for (let round = 1; round <= rounds && !this.stopped; round++) {
      this.result.textContent = rounds > 1 ? `Round ${round} of ${rounds}` : '';
      await this.#round(settings);
    }
    this.#running(false);
    this.#judge(rounds);
  }

  async #round(settings) {
    for (const lane of this.lanes) lane.prepare(this.question.value, settings);
    if (this.together.checked) {
      await Promise.all(this.lanes.map((lane) => lane.run()));
    } else {
      for (const lane of this.lanes) if (!this.stopped) await lane.run();
    }
  }

  #running(running) {
    this.running = running;
    this.stopped = false;
    this.startButton.disabled = running;
    this.stopButton.hidden = !running;
  }

  // Both rails on one scale.
  #align() {
    const limit = Math.max(...this.lanes.map(({ answer }) => (answer ? answer.ms : 0)));
    for (const { answer } of this.lanes) {
      if (!answer) continue;
      answer.rail.limit = limit;
      answer.rail.changed();
    }
  }

  #judge(rounds) {
    this.#align();
    if (this.lanes.some(({ times }) => times.length < rounds)) {
      this.result.textContent = 'No result: one of the two did not finish.';
      return;
    }
    const [parallel, serial] = this.lanes.map((lane) => lane.answer);
    const [ours, theirs] = this.lanes.map((lane) => lane.median(({ ms }) => ms));
    const ideal = parallel.tokens / parallel.parallel.critical_path_tokens;
    this.result.replaceChildren(el('strong', {}, `${(theirs / ours).toFixed(2)}× as fast in parallel`),
      ` (${seconds(ours)} s against ${seconds(theirs)} s${rounds > 1 ? `, medians of ${rounds} rounds` : ''}). ` +
      `The tree allows ${ideal.toFixed(2)}×: ${count(parallel.tokens)} tokens over a critical path of ` +
      `${count(parallel.parallel.critical_path_tokens)}. ` +
      (parallel.content === serial.content ? 'Both wrote the same text.' : 'The two texts differ.'));
    this.#explain();
  }

  // Where the time went: the tree says how many steps are saved, the machine what a step with several paths costs.
  #explain() {
    const rows = this.lanes.map((lane) => {
      const { steps, tokens } = lane.times[0];
      const all = lane.times.map(({ ms }) => ms);
      return {
        steps, mode: lane.mode, first: lane.median(({ first }) => first), perToken: tokens / steps,
        perStep: lane.median(({ writing }) => writing) / steps, range: `${seconds(Math.min(...all))} to ${seconds(Math.max(...all))} s`,
      };
    });
    const [wide, narrow] = rows;
    const dearer = wide.perStep / narrow.perStep;
    const cells = (row) => [row.range, `${row.first.toFixed(0)} ms`, count(row.steps), `${row.perStep.toFixed(2)} ms`, row.perToken.toFixed(2)];
    this.explanation.replaceChildren(
      el('h2', {}, 'What was measured'),
      el('table', {},
        el('thead', {}, el('tr', {}, ...['Mode', 'Whole', 'First token', 'Steps', 'A step', 'Tokens a step'].map((title) => el('th', { scope: 'col' }, title)))),
        el('tbody', {}, ...rows.map((row) => el('tr', {}, el('th', { scope: 'row' }, row.mode), ...cells(row).map((text) => el('td', {}, text)))))),
      el('p', {}, `In parallel the answer takes ${(narrow.steps / wide.steps).toFixed(2)}× fewer steps, of which each took ${dearer.toFixed(2)}× ` +
        `the time of a serial one and computed ${(wide.perToken / narrow.perToken).toFixed(2)}× the tokens. Where a step is bound by reading the ` +
        'weights, as large models on a GPU are, more paths cost it little, and the speed-up comes near to what the tree allows; ' +
        'a small model on few cores pays for each path.'),
      el('p', {}, 'The clock is this page’s, from sending the question to the last event' +
        (this.together.checked ? ', while both shared the machine' : '') +
        (kSameMachine ? '. Browser and server are on one machine here: what drawing takes, the server lacks.' : '.')));
  }
}
