// API: every method with its messages, to be tried from here.

import { callWith, catalog, lines } from '/console/shell/api.js';
import { failure, h, panel, put, traceLink } from '/console/shell/ui.js';

/** Messages of a stream that are shown. */
const SHOWN_MAX = 200;
const short = (name) => name.replace(/^playhouse\./, '');

export async function show(place, { parts, signal, isOperator }) {
  const api = await catalog();
  const [chosenService, chosenMethod] = parts;
  const list = api.services.map((service) => h('details', { open: service.name === chosenService || !chosenService }, h('summary', {}, h('b', {}, short(service.name))),
    service.comment && h('p', { class: 'small quiet' }, service.comment),
    service.methods.map((method) => h('div', {}, h('a', { href: `#/api/${service.name}/${method.name}`, 'aria-current': service.name === chosenService && method.name === chosenMethod ? 'true' : undefined }, method.name), method.streams_answers ? h('span', { class: 'quiet small' }, ' stream') : null))));
  const area = h('div');
  put(place, h('div', { class: 'api' }, panel('Services', list), area));
  place.firstChild.style.cssText = 'display:grid;gap:14px;grid-template-columns:repeat(auto-fit,minmax(min(300px,100%),1fr))';
  const service = api.services.find((known) => known.name === chosenService);
  const method = service?.methods.find((known) => known.name === chosenMethod);
  if (!method) return put(area, panel('Try a call', h('p', {}, 'Choose a method. The same calls go over gRPC (any node, reflection is on) and as JSON:'), h('pre', {}, `curl -H "authorization: Bearer $TOKEN" -X POST \\\n  ${location.origin}/api/playhouse.cluster.v1.Admin/Status`)));
  const request = h('textarea', { rows: 10, spellcheck: 'false', 'aria-label': 'Request' });
  request.value = JSON.stringify(example(api, method.request), null, 2);
  const id = h('input', { class: 'grow', placeholder: 'request id (drawn where it is empty)', 'aria-label': 'Request id' });
  const answer = h('div', { 'aria-live': 'polite' });
  const send = h('button', { class: 'main', disabled: (!method.is_read && !isOperator) || method.streams_requests }, 'Send');
  const stop = h('button', { hidden: true }, 'Stop');
  const submit = async (event) => {
    event.preventDefault();
    let body;
    try { body = JSON.parse(request.value || '{}'); } catch (error) { return put(answer, failure({ code: 'Not JSON', message: error.message })); }
    const name = `${service.name}/${method.name}`;
    const began = performance.now();
    if (!method.streams_answers) {
      try {
        const { answer: said, traceId, requestId } = await callWith(name, body, { signal, requestId: id.value.trim() || undefined });
        return put(answer, h('p', { class: 'small quiet' }, `OK after ${(performance.now() - began).toFixed(1)} ms · request id ${requestId} · trace `, traceLink(traceId)), h('pre', {}, JSON.stringify(said, null, 2)));
      } catch (fault) { return signal.aborted || put(answer, failure(fault)); }
    }
    const leave = new AbortController();
    signal.addEventListener('abort', () => leave.abort());
    const shown = h('pre'), note = h('p', { class: 'small quiet' });
    put(answer, note, shown);
    stop.hidden = false;
    stop.onclick = () => leave.abort();
    let came = 0;
    const told = [];
    const take = (message) => { told.unshift(JSON.stringify(message, null, 2)); told.length = Math.min(told.length, SHOWN_MAX); shown.textContent = told.join('\n'); note.textContent = `${++came} messages, the latest first`; };
    try { for await (const message of lines(name, body, { signal: leave.signal })) take(message); note.textContent += '; the stream has ended'; }
    catch (fault) { if (!leave.signal.aborted) put(answer, failure(fault)); }
    stop.hidden = true;
  };
  put(area,
    panel(`${short(service.name)} / ${method.name}`, h('p', {}, method.comment), h('p', { class: 'small quiet' }, method.is_read ? 'Changes nothing.' : 'Changes something: takes an operator’s token. Repeating it under the same request id does nothing twice.', method.streams_requests ? ' Takes a stream of requests: only over gRPC.' : ''),
      h('form', { onsubmit: submit }, request, h('div', { class: 'row' }), h('div', { class: 'row' }, id, send, stop)), answer),
    panel('Messages', message(api, method.request), message(api, method.answer)));
}

function example(api, name, depth = 0) {
  const message = api.messages[name];
  if (!message || depth > 2) return {};
  const seen = new Set();
  return Object.fromEntries(message.fields.filter((field) => !field.one_of || (!seen.has(field.one_of) && seen.add(field.one_of))).map((field) => [field.name, field.is_list ? [] : field.is_map ? {} : value(api, field, depth)]));
}
function value(api, field, depth) {
  if (api.messages[field.type]) return example(api, field.type, depth + 1);
  if (api.enums[field.type]) return api.enums[field.type][0];
  if (field.type === 'string' || field.type === 'bytes') return '';
  if (field.type === 'bool') return false;
  return 0;
}
function message(api, name, seen = new Set()) {
  if (seen.has(name) || !api.messages[name]) return null;
  seen.add(name);
  const { comment, fields } = api.messages[name];
  return h('details', { open: seen.size < 3 }, h('summary', { class: 'mono' }, short(name)), comment && h('p', { class: 'small' }, comment),
    h('div', { class: 'scroll' }, h('table', {}, h('tbody', {}, fields.map((field) => h('tr', {}, h('td', { class: 'mono' }, field.name), h('td', { class: 'mono quiet' }, `${field.is_list ? 'list of ' : field.is_map ? 'map to ' : ''}${short(field.type)}`), h('td', { class: 'small' }, field.comment, field.one_of ? ` (one of ${field.one_of})` : '')))))),
    fields.map((field) => message(api, field.type, seen)), fields.map((field) => api.enums[field.type] ? h('p', { class: 'small mono' }, `${short(field.type)}: ${api.enums[field.type].join(', ')}`) : null));
}
