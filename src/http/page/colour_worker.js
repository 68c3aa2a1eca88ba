// Splits code into parts: gets {language, text}, answers [[kind or '', length], …], or null where the language is not
// known; says once that it is ready. See colour.js.
self.Prism = { manual: true, disableWorkerMessageHandler: true };
importScripts('prism.js');

// What Prism calls them, by what is coloured here.
const kKinds = {
  comment: ['comment', 'prolog', 'doctype', 'cdata', 'docstring'],
  string: ['string', 'char', 'attr-value', 'regex', 'template-string', 'triple-quoted-string', 'string-literal', 'url'],
  number: ['number', 'boolean', 'constant', 'symbol', 'nil'],
  keyword: ['keyword', 'atrule', 'important', 'selector', 'tag', 'rule', 'directive', 'macro'],
  function: ['function', 'function-definition', 'method', 'attr-name', 'property', 'key', 'builtin'],
  type: ['class-name', 'type', 'namespace', 'builtin-type', 'decorator', 'annotation'],
  inserted: ['inserted', 'inserted-sign'],
  deleted: ['deleted', 'deleted-sign'],
};
const kindOf = new Map(Object.entries(kKinds).flatMap(([kind, names]) => names.map((name) => [name, kind])));

const kOtherNames = { 'c++': 'cpp', 'c#': 'csharp', python3: 'python', jsonl: 'json', console: 'bash', zsh: 'bash' };

function flatten(tokens, outer, parts) {
  for (const token of tokens) {
    if (typeof token === 'string') {
      const last = parts.at(-1);
      if (last?.[0] === outer) last[1] += token.length;
      else parts.push([outer, token.length]);
    } else {
      const kind = [token.type, token.alias].flat().map((name) => kindOf.get(name)).find(Boolean) ?? outer;
      flatten([token.content].flat(), kind, parts);
    }
  }
  return parts;
}

self.onmessage = ({ data: { language: said, text } }) => {
  const language = Object.hasOwn(kOtherNames, said) ? kOtherNames[said] : said;
  const known = Object.hasOwn(Prism.languages, language) && typeof Prism.languages[language] === 'object';
  postMessage(known ? flatten(Prism.tokenize(text, Prism.languages[language]), '', []) : null);
};
postMessage('ready');
