// The control tokens of the dialects in configs/dialects, by what they do. An answer speaks one of them: the one whose
// first goal or block it opens.
const kDialects = [
  {
    '<Think>': 'skip', '</Think>': 'think_close', '<Parallel>': 'block_open', '</Parallel>': 'block_close',
    '<Goal>': 'goal_open', '</Goal>': 'fork', '<Outline>': 'outline_open', '</Outline>': 'outline_close',
    '<Path>': 'path_open', '</Path>': 'path_close', '<Conclusion>': 'conclusion_open', '</Conclusion>': 'conclusion_close',
  },
  {
    '<guideline>': 'goal_open', '</guideline>': 'fork', '<plan>': 'outline_open', '</plan>': 'outline_close',
    '<step>': 'path_open', '</step>': 'path_close', '<takeaway>': 'conclusion_open', '</takeaway>': 'conclusion_close',
  },
];
const kAll = kDialects.flatMap((words) => Object.keys(words));

export const kTags = new RegExp(kAll.join('|'), 'g');
export const kOpenTag = /<\/?[A-Za-z]{0,10}$/; // the beginning of one that may still be coming
// What the engine writes before a path's own words.
export const pathHeader = (label) => new RegExp(`^\\s*<(?:Path|step)>\\s*${label.replaceAll('.', '\\.')}\\s*:[ \\t]*`);

// The outlines of the goal that a text ends with, in order. Only those with a readable label fork.
export function outlinesOf(text) {
  const goal = Math.max(text.lastIndexOf('<Goal>'), text.lastIndexOf('<guideline>'));
  if (goal < 0) return [];
  const found = text.slice(goal).matchAll(/<(Outline|plan)>\s*(\d+(?:\.\d+)*)\s*:([\s\S]*?)<\/\1>/g);
  return [...found].map((match) => match[3].trim());
}

// The last line that a path has written.
export function lastLine(text) {
  const plain = text.slice(-300).replace(/^\s*<(?:Path|step)>\s*[\d.]+:?/, '').replace(kTags, '').trimEnd();
  return plain.slice(plain.lastIndexOf('\n') + 1).trim();
}

// Tells what a tag does in one answer; null for one of another dialect, which is text here.
export class Words {
  #own = null;

  role(tag) {
    const words = this.#own ?? kDialects.find((dialect) => tag in dialect);
    const role = words[tag] ?? null;
    if (role === 'goal_open' || role === 'block_open') this.#own = words;
    return role;
  }
}
