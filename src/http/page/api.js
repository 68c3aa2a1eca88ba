// The server's API, as the page uses it. All addresses are relative, so the page works below any path.

const kKey = 'multiverse.key';
export const apiKey = {
  get: () => sessionStorage.getItem(kKey) ?? '',
  set: (key) => (key ? sessionStorage.setItem(kKey, key) : sessionStorage.removeItem(kKey)),
};

export class ApiError extends Error {
  constructor(status, message, details = {}) {
    super(message);
    Object.assign(this, { status, param: null, code: null, retryAfter: null, requestId: null }, details);
  }

  // What to do about it, "" where nobody can say.
  get advice() {
    const wait = this.retryAfter ? `in ${this.retryAfter} s` : 'a little later';
    if (this.status === 0) return 'Is the server still running? Look at the terminal that it was started in.';
    if (this.status === 401) return 'Set the API key (the Key button above); it stays in this tab.';
    if (this.status === 429) return `All places are taken. Try again ${wait}.`;
    if (this.code === 'not_ready') return `The model is still being loaded. Try again ${wait}.`;
    if (this.code === 'draining') return 'The server is shutting down.';
    if (this.status === 503) return `Try again ${wait}.`;
    if (this.code === 'context_length_exceeded') return 'Begin a new conversation, or ask something shorter.';
    if (this.param) return `Change the setting “${this.param}”.`;
    if (this.status >= 500) return `The server's log says more${this.requestId ? `: look for ${this.requestId}` : ''}.`;
    return '';
  }
}

async function failure(response) {
  const text = await response.text();
  const details = {
    retryAfter: response.headers.get('Retry-After'),
    requestId: response.headers.get('X-Request-Id'),
  };
  try {
    const { error } = JSON.parse(text);
    return new ApiError(response.status, String(error.message), { ...details, param: error.param, code: error.code });
  } catch {
    const line = text.split('\n')[0].slice(0, 300);
    return new ApiError(response.status, line || `the server answered ${response.status}`, details);
  }
}

async function send(path, options) {
  const headers = { ...options.headers };
  if (apiKey.get()) headers.Authorization = `Bearer ${apiKey.get()}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: 'no-store' });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ApiError(0, `no answer from ${new URL(path, document.baseURI)}`);
  }
  if (!response.ok) throw await failure(response);
  return response;
}

export async function get(path, signal) {
  return (await send(path, { signal })).text();
}

export async function post(path, body, signal) {
  const headers = { 'Content-Type': 'application/json' };
  return (await send(path, { method: 'POST', headers, body: JSON.stringify(body), signal })).json();
}

const kSliceMs = 12; // of parsing, before the browser may draw

// Streams a chat completion; `onChunk` gets each event's object. Resolves at [DONE]; throws ApiError, or AbortError
// once `signal` has fired, which closes the connection, which cancels the request.
export async function streamChat(body, signal, onChunk) {
  const response = await send('v1/chat/completions', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ ...body, stream: true }),
    signal,
  });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  let sliceStart = performance.now(); // parts that are there already come without a pause
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      throw new ApiError(0, 'the connection broke off in the middle of the answer');
    }
    if (part.done) throw new ApiError(0, 'the answer ended before it was complete');
    const events = (rest + part.value).split('\n\n');
    rest = events.pop();
    for (const event of events) {
      if (!event.startsWith('data: ')) continue; // a comment
      const data = event.slice('data: '.length);
      if (data === '[DONE]') return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError(500, String(chunk.error.message), { code: chunk.error.code });
      onChunk(chunk);
      if (performance.now() - sliceStart > kSliceMs) {
        await new Promise((resolve) => setTimeout(resolve));
        sliceStart = performance.now();
      }
    }
  }
}
