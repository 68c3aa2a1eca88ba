// How to ask: mode and sampling, as a row of fields.
import { el } from './dom.js';

const kNumbers = [
  { name: 'temperature', label: 'Temperature', min: 0, max: 2, step: 0.1, value: 0, title: '0 draws the likeliest token' },
  { name: 'max_tokens', label: 'Max tokens', min: 1, max: 1e6, step: 1, value: null, placeholder: 'what fits', title: 'Of all branches together' },
  { name: 'seed', label: 'Seed', min: 0, max: Number.MAX_SAFE_INTEGER, step: 1, value: null, placeholder: 'random', title: 'The same seed gives the same tokens' },
  { name: 'top_p', label: 'Top p', min: 0.01, max: 1, step: 0.01, value: null, placeholder: '1', more: true },
  { name: 'max_running_paths', label: 'Paths at once', min: 1, max: 65536, step: 1, value: null, placeholder: 'all', more: true, title: 'Further paths wait their turn; the tokens stay the same' },
];
const kModes = [
  ['parallel', 'Parallel', 'Paths run at once'],
  ['serial', 'Serial', 'The same tree and tokens, one path at a time'],
  ['off', 'Off', 'Control tokens are ordinary ones'],
];

let groups = 0;

export class Settings {
  // `modes`: whether the mode can be chosen here.
  constructor({ modes = true, system = true } = {}) {
    this.fields = new Map();
    const group = `mode-${groups++}`;
    this.modes = kModes.map(([value, label, title]) => {
      const input = el('input', { type: 'radio', name: group, value, checked: value === 'parallel' });
      return { input, node: el('label', { title }, input, el('span', {}, label)) };
    });
    const fields = kNumbers.map((field) => ({ field, node: this.#number(field) }));
    this.strict = el('input', { type: 'checkbox' });
    this.system = el('textarea', { rows: '2', placeholder: 'None' });
    this.node = el('div.settings', {},
      modes && el('fieldset.modes', {}, el('legend', {}, 'Mode'), ...this.modes.map(({ node }) => node)),
      ...fields.filter(({ field }) => !field.more).map(({ node }) => node),
      el('details', {}, el('summary', {}, 'More'),
        el('div', {},
          ...fields.filter(({ field }) => field.more).map(({ node }) => node),
          el('label.check', { title: 'Control tokens that the grammar has no place for can’t be drawn' }, this.strict, 'Strict structure'),
          system && el('label.system', {}, 'System prompt', this.system))));
  }

  #number({ name, label, title, value, placeholder, min, max, step }) {
    const input = el('input', { type: 'number', min, max, step, value, placeholder, name });
    this.fields.set(name, input);
    return el('label', { title }, label, input);
  }

  // The first field whose value is not allowed is shown to the user; then null.
  read() {
    const values = {};
    for (const [name, input] of this.fields) {
      if (!input.reportValidity()) return null;
      values[name] = input.value === '' ? null : Number(input.value);
    }
    values.mode = this.modes.find(({ input }) => input.checked).input.value;
    values.structure = this.strict.checked ? 'strict' : null;
    values.system = this.system.value.trim();
    values.seed ??= crypto.getRandomValues(new Uint32Array(1))[0];
    return values;
  }

  write(values) {
    for (const [name, input] of this.fields) input.value = values[name] ?? '';
    for (const { input } of this.modes) input.checked = input.value === values.mode;
    this.strict.checked = values.structure === 'strict';
    this.system.value = values.system ?? '';
  }
}
