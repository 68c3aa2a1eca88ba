// Reads what a branch writes, while it grows.
import { kOpenTag, kTags, pathHeader } from './words.js';

// Splits a run's text, as it grows, into words of the structure and what stands between them.
export class RunReader {
  constructor(run, isPath, label) {
    this.run = run;
    this.at = 0;
    this.behind = false; // more is there than was asked for
    this.header = isPath ? pathHeader(label) : null;
  }

  // {text} | {tag} | {mark} of what is new, at most room.lines, which are taken from it. `whole`: the run will not grow.
  *next(whole, room) {
    if (this.header) {
      const header = this.header.exec(this.run.text);
      if (!header && !whole && this.run.text.length < 64) return;
      if (header) this.at = header[0].length;
      this.header = null;
    }
    let end = this.run.text.length;
    const open = whole ? null : kOpenTag.exec(this.run.text.slice(this.at));
    if (open) end = this.at + open.index;
    const stop = this.#within(room, end);
    this.behind = stop < end;
    end = stop;
    const tags = new RegExp(kTags);
    tags.lastIndex = this.at;
    for (let tag; (tag = tags.exec(this.run.text)) && tag.index < end; this.at = tags.lastIndex) {
      if (tag.index > this.at) yield { text: this.run.text.slice(this.at, tag.index) };
      const mark = this.run.marks.find((place) => place.offset === tag.index);
      yield mark ? { mark } : { tag: tag[0] };
    }
    if (end > this.at) yield { text: this.run.text.slice(this.at, end) };
    this.at = end;
  }

  // Where the lines that there is room for end; no tag goes beyond a line.
  #within(room, end) {
    let at = this.at;
    for (; room.lines > 0; room.lines--) {
      const newline = this.run.text.indexOf('\n', at);
      if (newline < 0 || newline >= end) return end;
      at = newline + 1;
    }
    return at;
  }
}
