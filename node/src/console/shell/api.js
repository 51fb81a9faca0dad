// The one way to a cluster: every call goes to the node that served this page, and to another one when that does not answer. Each
// carries a request id, so that asking again elsewhere does nothing twice.

const TOKEN = 'playhouse.token', HOMES = 'playhouse.homes';
const ANSWER_MAX_MS = 8_000, PAUSE_MS = 400, ROUNDS = 3;

/** What a node said instead of an answer, or that none answered. */
export class Fault extends Error {
  constructor({ code, message, reason, about, fields, retry_after_ms }, status) {
    super(message || code || 'no answer');
    Object.assign(this, { code, reason, about, fields, retryAfterMs: retry_after_ms, status });
  }
}

const listeners = new Set();
let homes = unique([location.origin, ...JSON.parse(sessionStorage.getItem(HOMES) || '[]')]);
let home = homes[0];

function unique(list) { return [...new Set(list)]; }
export const token = () => localStorage.getItem(TOKEN);
export const keepToken = (value) => value ? localStorage.setItem(TOKEN, value) : localStorage.removeItem(TOKEN);
export const here = () => home;
/** Where a node serves HTTP: over TLS if this page came so, because all nodes are set up alike. */
export const urlOf = (node) => `${location.protocol}//${node.http}`;
/** Hears when another node is asked, and when none answers: (home, isLost). */
export const onHome = (listener) => listeners.add(listener);

/** Takes note of where the nodes are. */
export function learn(nodes) {
  const known = nodes.filter((node) => node.http).map(urlOf);
  homes = unique([home, ...known.map(asSeenFromHere), ...homes]).slice(0, 40);
  sessionStorage.setItem(HOMES, JSON.stringify(homes));
}
// A node that listens on all addresses does not know under which one we reach it.
function asSeenFromHere(url) { return url.replace('//0.0.0.0:', `//${location.hostname}:`).replace('//[::]:', `//${location.hostname}:`); }

function settle(url, isLost) {
  const changed = url !== home;
  home = url;
  listeners.forEach((listener) => listener(url, isLost, changed));
}

const pause = (ms, signal) => new Promise((done, failed) => {
  const timer = setTimeout(done, ms);
  signal?.addEventListener('abort', () => { clearTimeout(timer); failed(signal.reason); }, { once: true });
});

// Browsers show a client certificate to the node of the page only; at others we are somebody with the token alone.
const candidates = () => token() ? unique([home, ...homes]) : [location.origin];

/** Fetches from whichever node answers, in rounds. */
async function reach(path, options, signal, answerMax, at) {
  let last;
  for (let round = 0; round < ROUNDS; round++) {
    for (const url of at ? [at] : candidates()) {
      const late = new AbortController();
      const timer = setTimeout(() => late.abort(new Error('late')), answerMax);
      const both = signal ? AbortSignal.any([signal, late.signal]) : late.signal;
      try {
        const response = await fetch(url + path, { ...options, signal: both, cache: 'no-store' });
        clearTimeout(timer);
        if (!at) settle(url, false);
        return response;
      } catch (error) {
        clearTimeout(timer);
        if (signal?.aborted) throw signal.reason;
        last = error;
      }
    }
    if (at) break;
    settle(home, true);
    await pause(PAUSE_MS * (round + 1), signal);
  }
  if (at) throw new Fault({ code: 'UNREACHABLE', message: `${at.replace(/^https?:[/][/]/, '')} does not answer. ${last?.message ?? ''}` });
  throw new Fault({ code: 'UNREACHABLE', message: `No node answers (${candidates().length} tried). Is the cluster running? \`playhouse status\` tells more. ${last?.message ?? ''}` });
}

function headers(requestId) {
  const all = { 'content-type': 'application/json' };
  if (token()) all.authorization = `Bearer ${token()}`;
  if (requestId) all['x-request-id'] = requestId;
  return all;
}

export const newRequestId = () => `console-${crypto.getRandomValues(new Uint32Array(3)).join('-')}`;

async function faultOf(response) {
  let said = {};
  try { said = await response.json(); } catch { /* what is no JSON says nothing more than its status */ }
  return new Fault({ code: String(response.status), message: response.statusText, ...said }, response.status);
}

/** Calls SERVICE/METHOD; gives its answer with the trace id of the call beside it. */
export async function callWith(method, request = {}, { signal, requestId = newRequestId(), answerMax = ANSWER_MAX_MS, at } = {}) {
  const options = { method: 'POST', headers: headers(requestId), body: JSON.stringify(request) };
  const response = await reach(`/api/${method}`, options, signal, answerMax, at);
  if (!response.ok) throw await faultOf(response);
  return { answer: await response.json(), traceId: response.headers.get('x-trace-id'), requestId };
}
export const call = async (method, request, options) => (await callWith(method, request, options)).answer;

/** The same of one node, whichever else there are; of any where none is named. */
export const callAt = (at, method, request, options = {}) => call(method, request, { ...options, at: at && asSeenFromHere(at) });

/** The messages of a stream that ends, one after the other; leaving the loop ends it. */
export async function* lines(method, request = {}, { signal } = {}) {
  const stop = new AbortController();
  const both = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal;
  const response = await reach(`/api/${method}`, { method: 'POST', headers: headers(newRequestId()), body: JSON.stringify(request) }, both, ANSWER_MAX_MS);
  if (!response.ok) throw await faultOf(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + value).split('\n');
      rest = parts.pop();
      for (const part of parts) {
        const said = JSON.parse(part);
        if (said.error) throw new Fault(said.error);
        yield said.result;
      }
    }
  } finally { stop.abort(); }
}

/** Server-sent events of a stream without end; begins anew, elsewhere if need be, until the signal says stop. `request` may be a function:
 * it is asked at each beginning, so that a stream can go on where it was. */
export async function listen(method, request, onMessage, { signal, onFault, at } = {}) {
  while (!signal?.aborted) {
    try {
      const now = typeof request === 'function' ? request() : request;
      const path = `/api/${method}?request=${encodeURIComponent(JSON.stringify(now ?? {}))}`;
      const response = await reach(path, { headers: { ...headers(), accept: 'text/event-stream' } }, signal, ANSWER_MAX_MS, at);
      if (!response.ok) throw await faultOf(response);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = '';
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        const events = (rest + value).split('\n\n');
        rest = events.pop();
        for (const event of events) {
          const name = /^event: ?(.*)$/m.exec(event)?.[1];
          const data = /^data: ?(.*)$/m.exec(event)?.[1];
          if (name === 'result') onMessage(JSON.parse(data));
          if (name === 'error') throw new Fault(JSON.parse(data));
        }
      }
    } catch (fault) {
      if (signal?.aborted) return;
      onFault?.(fault);
      if ([400, 401, 403, 404, 501].includes(fault.status)) return;
    }
    try { await pause(PAUSE_MS, signal); } catch { return; }
  }
}

/** The same of one node, however often it goes away. */
export const listenAt = (at, method, request, onMessage, options = {}) => listen(method, request, onMessage, { ...options, at: asSeenFromHere(at) });

/** Changes a code that counts once for a token. */
export async function redeem(code) {
  const response = await fetch('/login', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ code }) });
  if (!response.ok) throw await faultOf(response);
  keepToken((await response.json()).token);
}

/** What we may do, reader or operator, and the name of our certificate if that is what let us in. */
export async function session() {
  const response = await reach('/session', { headers: headers() }, undefined, ANSWER_MAX_MS);
  if (!response.ok) throw await faultOf(response);
  return response.json();
}

/** The whole of the API, told by a node. */
export async function catalog() {
  const response = await reach('/api', { headers: headers() }, undefined, ANSWER_MAX_MS);
  if (!response.ok) throw await faultOf(response);
  return response.json();
}

/** Asks again and again, also after faults; one at a time, and not while nobody looks. */
export function poll(everyMs, signal, ask, onFault) {
  (async () => {
    while (!signal.aborted) {
      try {
        if (!document.hidden) await ask();
      } catch (fault) {
        if (signal.aborted) return;
        onFault?.(fault);
      }
      try { await pause(everyMs, signal); } catch { return; }
    }
  })();
}
