// Ask and watch: a conversation of several turns.
import { Answer, requestBody } from './answer.js';
import { el, button, download, errorBox } from './dom.js';
import { kExamples } from './examples.js';
import { Settings } from './settings.js';

const kSaved = 'multiverse.conversation';
const kFormat = 'multiverse-conversation';
const kLongQuestion = 600; // characters, after which it may have to be scrolled
const kMaxImport = 32 * 1024 * 1024; // bytes

export class AskView {
  constructor() {
    this.turns = []; // {question, settings, answer, node}
    this.settings = new Settings();
    this.question = el('textarea', { rows: '2', placeholder: 'Ask something …', 'aria-label': 'Question', required: true });
    this.question.onkeydown = (event) => {
      if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.ask(this.question.value);
      }
    };
    this.askButton = el('button.primary', { type: 'submit' }, 'Ask');
    this.list = el('div.turns');
    this.notice = el('div');
    this.file = el('input', { type: 'file', accept: '.json,application/json', hidden: true, 'aria-label': 'Conversation file' });
    this.file.onchange = () => this.#import(this.file.files[0]);
    this.start = el('section.start', {},
      el('h2', {}, 'Ask, and watch the model think in parallel'),
      el('p', {}, 'Where it plans several paths, each runs in its own column at the same time; their conclusion joins them. Try one:'),
      el('div.examples', {}, ...kExamples.map(([name, text]) => {
        const example = button('', () => this.ask(text));
        example.append(el('strong', {}, name), el('span', {}, text));
        return example;
      })));
    this.node = el('section.view.ask', { 'aria-label': 'Ask' },
      el('div.toolbar', {}, el('h1', {}, 'Conversation'), button('New', () => this.#clear()),
        button('Export', () => download('conversation.json', JSON.stringify(this, null, 1))),
        button('Import', () => this.file.click()), this.file),
      this.notice, this.start, this.list,
      el('form.composer', { onsubmit: (event) => { event.preventDefault(); this.ask(this.question.value); } },
        el('div.line', {}, this.question, this.askButton), this.settings.node));
    const saved = sessionStorage.getItem(kSaved);
    if (saved) this.#load(saved);
  }

  get running() {
    return this.turns.find((turn) => turn.answer.running);
  }

  async ask(question, settings = this.settings.read()) {
    if (!question.trim() || !settings || this.running) return;
    this.question.value = '';
    const messages = settings.system ? [{ role: 'system', content: settings.system }] : [];
    for (const turn of this.turns) {
      if (!turn.answer.content) continue;
      messages.push({ role: 'user', content: turn.question }, { role: 'assistant', content: turn.answer.content });
    }
    messages.push({ role: 'user', content: question });
    const turn = this.#add(question, settings, requestBody(messages, settings));
    this.#busy(true);
    turn.node.scrollIntoView({ block: 'start' });
    await turn.answer.run();
    this.#busy(false);
    this.#save();
  }

  #busy(busy) {
    this.askButton.disabled = busy;
    for (const turn of this.turns) turn.retry.disabled = busy || turn !== this.turns.at(-1);
  }

  #add(question, settings, body, saved = null) {
    const retry = button('Retry', () => this.#retry(), { title: `The same question with the same seed, ${settings.seed}` });
    const answer = new Answer(body, { saved, actions: [retry] });
    const node = el('section', {}, el('div.question', {}, el('p', { tabindex: question.length > kLongQuestion ? '0' : null }, question),
      el('span.how', {}, `${settings.mode} · seed ${settings.seed}`)), answer.node);
    const turn = { question, settings, answer, node, retry };
    this.turns.push(turn);
    this.list.append(node);
    this.start.hidden = true;
    return turn;
  }

  #retry() {
    const turn = this.turns.pop();
    turn.node.remove();
    this.ask(turn.question, turn.settings);
  }

  #clear() {
    this.running?.answer.stop();
    this.turns = [];
    this.list.replaceChildren();
    this.notice.replaceChildren();
    this.start.hidden = false;
    sessionStorage.removeItem(kSaved);
    this.question.focus();
  }

  #save() {
    try {
      sessionStorage.setItem(kSaved, JSON.stringify(this));
    } catch {
      sessionStorage.removeItem(kSaved); // larger than the browser keeps: gone at a reload, Export has it
    }
  }

  toJSON() {
    return {
      format: kFormat,
      version: 1,
      turns: this.turns.filter((turn) => !turn.answer.running)
        .map(({ question, settings, answer }) => ({ question, settings, request: answer.body, answer })),
    };
  }

  // Takes all of it or nothing.
  #load(text) {
    try {
      const saved = JSON.parse(text);
      if (saved?.format !== kFormat || !Array.isArray(saved.turns)) throw new Error('it is no exported conversation');
      for (const { request, settings, answer } of saved.turns) {
        if (!request || !settings || !answer) throw new Error('a turn lacks its request, settings or answer');
        new Answer(request, { saved: answer }); // throws where it can't be drawn
      }
      this.#clear();
      for (const { question, settings, request, answer } of saved.turns) this.#add(String(question), settings, request, answer);
      if (saved.turns.length) this.settings.write(saved.turns.at(-1).settings);
      this.#busy(false);
      this.#save();
    } catch (error) {
      this.notice.replaceChildren(errorBox(new Error(`can't read the conversation: ${error.message}`)));
    }
  }

  async #import(file) {
    if (!file) return;
    this.file.value = '';
    if (file.size > kMaxImport) {
      this.notice.replaceChildren(errorBox(new Error(`the file has ${file.size} bytes; at most ${kMaxImport} are read`)));
      return;
    }
    this.#load(await file.text());
  }
}
