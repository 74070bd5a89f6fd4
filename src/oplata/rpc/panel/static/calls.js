// What the page says to the server: one call, a streamed query, or a subscription. All are plain fetches, so that
// headers can be sent with each.
const MAX_EVENTS = 500;

export class Caller {
  constructor(description, headers) {
    this.description = description;
    this.headers = headers;
  }

  wrap(value) { return this.description.superjson ? { json: value } : value; }
  unwrap(document) { return this.description.superjson ? document?.json : document; }
  url(path, query) {
    const given = new URLSearchParams(query).toString();
    return `${this.description.endpoint.replace(/\/$/, '')}/${encodeURIComponent(path)}${given ? '?' + given : ''}`;
  }

  // Resolves to {status, ok, value}; value is the data, or the shape of the error.
  async call(procedure, value, signal) {
    const options = { headers: this.headers(), signal };
    let query = {};
    if (procedure.kind === 'mutation') {
      options.method = 'POST';
      if (value instanceof FormData) options.body = value;
      else if (value instanceof Blob) { options.body = value; options.headers['content-type'] = 'application/octet-stream'; }
      else {
        options.headers['content-type'] = 'application/json';
        if (value !== undefined) options.body = JSON.stringify(this.wrap(value));
      }
    } else if (value !== undefined) query = { input: JSON.stringify(this.wrap(value)) };
    const response = await fetch(this.url(procedure.path, query), options);
    const text = await response.text();
    let document;
    try { document = JSON.parse(text); } catch { return { status: response.status, ok: false, value: text }; }
    if (document.error) return { status: response.status, ok: false, value: this.unwrap(document.error) };
    return { status: response.status, ok: response.ok, value: this.unwrap(document.result?.data) };
  }

  // Calls onValue for each value of a query that streams; returns the shape of an error, or undefined at a good end.
  async stream(procedure, value, signal, onValue) {
    const inputs = value === undefined ? {} : { 0: this.wrap(value) };
    const query = { batch: '1', input: JSON.stringify(inputs) };
    const headers = { ...this.headers(), 'trpc-accept': 'application/jsonl' };
    const mutation = procedure.kind === 'mutation';
    const options = mutation
      ? { method: 'POST', headers: { ...headers, 'content-type': 'application/json' }, body: query.input, signal }
      : { headers, signal };
    const response = await fetch(this.url(procedure.path, mutation ? { batch: '1' } : query), options);
    let iterable;
    for await (const line of lines(response)) {
      if (!line.trim()) continue;
      const chunk = this.unwrap(JSON.parse(line));
      if (!Array.isArray(chunk)) { if (chunk?.error) return this.unwrap(chunk.error); continue; }
      const [number, status, parts] = chunk;
      if (number === iterable) {
        if (status === 2) return parts;
        if (status === 1) onValue(parts[0][0]);
        else return undefined;
      } else if (parts?.[0]?.[0]?.error) return parts[0][0].error;
      else for (const [key, kind, place] of parts?.slice(1) ?? []) if (key === 'data' && kind === 1) iterable = place;
    }
    return { message: 'The stream was cut off.' };
  }

  // A subscription that comes back with the last id until it is stopped, ended by the server, or refused.
  async subscribe(procedure, value, signal, onEvent, onState) {
    let lastId;
    for (;;) {
      const query = value === undefined ? {} : { input: JSON.stringify(this.wrap(value)) };
      const headers = { ...this.headers(), accept: 'text/event-stream', ...(lastId ? { 'last-event-id': lastId } : {}) };
      try {
        const response = await fetch(this.url(procedure.path, query), { headers, signal });
        if (!response.headers.get('content-type')?.startsWith('text/event-stream')) {
          const document = await response.json().catch(() => ({}));
          return { ok: false, value: this.unwrap(document.error) ?? { message: `Status ${response.status}` } };
        }
        onState('Connected');
        let event = {};
        for await (const line of lines(response)) {
          if (line) {
            const [, key, content] = /^([^:]*):? ?(.*)$/.exec(line);
            event[key] = key === 'data' && event.data !== undefined ? event.data + '\n' + content : content;
            continue;
          }
          const { event: name = 'message', data, id } = event;
          event = {};
          if (id) lastId = id;
          if (name === 'return') return { ok: true };
          if (name === 'serialized-error') return { ok: false, value: this.unwrap(JSON.parse(data)) };
          if (name === 'message' && data !== undefined) onEvent({ id: id || undefined, data: this.unwrap(JSON.parse(data)) });
        }
      } catch (error) {
        if (signal.aborted) return { ok: true };
      }
      onState('Connecting again');
      await new Promise((resolve) => setTimeout(resolve, 1000));
      if (signal.aborted) return { ok: true };
    }
  }
}

async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const parts = (rest + value).split('\n');
    rest = parts.pop();
    yield* parts;
  }
  if (rest) yield rest;
}

export { MAX_EVENTS };
