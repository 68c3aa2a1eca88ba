// Reads what a branch writes, while it grows.
import { kOpenTag, kTags, pathHeader } from './words.js';

// Splits a run's text, as it grows, into words of the structure and what stands between them.
export class RunReader {
  constructor(run, isPath, label) {
    this.run = run;
    this.at = 0;
    this.header = isPath ? pathHeader(label) : null;
  }

  // {text} | {tag} | {mark} of what is new. `whole`: the run will not grow.
  *next(whole) {
    if (this.header) {
      const header = this.header.exec(this.run.text);
      if (!header && !whole && this.run.text.length < 64) return;
      if (header) this.at = header[0].length;
      this.header = null;
    }
    let end = this.run.text.length;
    const open = whole ? null : kOpenTag.exec(this.run.text.slice(this.at));
    if (open) end = this.at + open.index;
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
}
