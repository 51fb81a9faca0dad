// Traces: find them, look at one (`#/traces/ID`), compare two (`#/traces/ID/with/ID`), and who calls whom (`#/traces/graph`).

import { call, poll } from '/console/shell/api.js';
import { Table, duration, entityLink, failure, h, panel, pill, put, time } from '/console/shell/ui.js';
import { showTrace } from './trace.js';
import { showComparison } from './compare.js';
import { showGraph } from './graph.js';

const LIMIT = 100, LOOK_MS = 3_000;
const MS = 1e6;

export async function show(place, context) {
  const { parts, query, signal, heading } = context;
  if (parts[0] === 'graph') return showGraph(place, context);
  if (parts.length === 3 && parts[1] === 'with') return showComparison(place, context, parts[0], parts[2]);
  if (parts[0]) return showTrace(place, context, parts[0]);
  put(heading, h('span', {}, 'Traces'), h('a', { href: '#/traces/graph', style: 'font-size:14px;font-weight:400' }, 'Who calls whom'));
  const field = (name, label, properties = {}) => h('label', {}, h('span', { class: 'small quiet' }, label), h('input', { name, value: query.get(name) ?? '', size: 12, ...properties }));
  const status = h('select', { name: 'status', 'aria-label': 'Status' }, [['', 'ok or not'], ['ok', 'ok'], ['error', 'failed']].map(([value, label]) => h('option', { value, selected: value === (query.get('status') ?? '') }, label)));
  const search = (event) => {
    event.preventDefault();
    const given = [...new FormData(event.target)].filter(([, value]) => value.trim());
    location.hash = `#/traces?${new URLSearchParams(given)}`;
  };
  const table = new Table([
    { title: '', cell: (trace) => h('input', { type: 'checkbox', 'aria-label': `Compare ${trace.traceId}`, checked: chosen.has(trace.traceId), onchange: (event) => choose(trace.traceId, event.target.checked) }) },
    { title: 'Trace', cell: (trace) => h('a', { class: 'mono', href: `#/traces/${trace.traceId}`, title: trace.traceId }, trace.traceId.slice(0, 8)) },
    { title: 'Began', cell: (trace) => time(trace.startUnixNs / MS) },
    { title: 'First span', cell: (trace) => h('span', {}, trace.root, ' ', trace.errors > 0 && pill(`${trace.errors} failed`, 'bad')) },
    { title: 'Took', number: true, cell: (trace) => duration((trace.endUnixNs - trace.startUnixNs) / MS) },
    { title: 'Spans', number: true, small: false, cell: (trace) => trace.spans },
    { title: 'Entities', cell: (trace) => h('span', { class: 'small' }, trace.entities.slice(0, 4).map((key) => [entityLink(key), ' ']), trace.entities.length > 4 && `and ${trace.entities.length - 4} more`) },
    { title: 'For', small: false, cell: (trace) => trace.users.join(', ') },
  ], { key: (trace) => trace.traceId, label: 'Traces', empty: 'No trace matches. A part of all requests is kept, and every one that fails or is slow.' });
  const chosen = new Set();
  const compare = h('a', { class: 'button', hidden: true }, 'Compare the two');
  function choose(id, isChosen) {
    if (isChosen) chosen.add(id); else chosen.delete(id);
    const two = [...chosen].slice(-2);
    compare.hidden = two.length < 2;
    compare.href = `#/traces/${two[0]}/with/${two[1]}`;
  }
  const trouble = h('div');
  put(place, h('form', { class: 'row', onsubmit: search, role: 'search' }, field('entity', 'entity ', { placeholder: 'order/42' }), field('saga', 'saga ', { placeholder: 'checkout/42' }), field('user', 'user '), field('service', 'service '), status,
    field('min', 'at least ', { type: 'number', min: 0, placeholder: 'ms', size: 6 }), field('text', 'text '), h('button', { class: 'main' }, 'Find'), compare), trouble, panel(null, table.element));
  const request = { entity: query.get('entity') ?? '', saga: query.get('saga') ?? '', user: query.get('user') ?? '', service: query.get('service') ?? '', status: query.get('status') ?? '', minDurationMs: query.get('min') || 0, text: query.get('text') ?? '', limit: LIMIT };
  const read = async () => {
    const found = await call('playhouse.telemetry.v1.Traces/Search', request, { signal });
    table.update(found.traces);
    put(trouble, found.unavailableNodes.length ? h('div', { class: 'note warn' }, `Node ${found.unavailableNodes.join(', ')} did not answer: traces that only it keeps are missing.`) : null);
  };
  try { await read(); } catch (fault) { put(trouble, failure(fault)); }
  poll(LOOK_MS, signal, () => chosen.size ? undefined : read(), (fault) => put(trouble, failure(fault)));
}
