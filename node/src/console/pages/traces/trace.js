// One trace as a waterfall: what waited for what, the critical path, what was written and logged.

import { call } from '/console/shell/api.js';
import { Table, duration, entityLink, facts, failure, h, panel, pill, put, sagaLink, time } from '/console/shell/ui.js';

const MS = 1e6;
/** Spans that are drawn; more of them would be too many to read. */
const DRAWN_MAX = 400;

export async function showTrace(place, { signal, heading }, id) {
  put(heading, h('a', { href: '#/traces' }, 'Traces'), ' / ', h('span', { class: 'mono' }, id));
  let trace;
  try { trace = await call('playhouse.telemetry.v1.Traces/Get', { traceId: id }, { signal }); } catch (fault) {
    return put(place, failure(fault, () => showTrace(place, { signal, heading }, id)), fault.status === 404 && h('p', {}, 'A part of all requests is kept, the oldest go. Where its id came from: ', h('a', { href: `#/logs?trace=${id}` }, 'log lines of this trace'), '.'));
  }
  // BigInt for the ends: nanoseconds since 1970 are too many for a plain number.
  const spans = trace.spans.map((span) => ({ ...span, from: BigInt(span.startUnixNs), to: BigInt(span.endUnixNs) }));
  if (!spans.length) return put(place, h('p', { class: 'empty' }, 'No span of it is kept.'));
  const first = spans.reduce((least, span) => span.from < least ? span.from : least, spans[0].from);
  const last = spans.reduce((most, span) => span.to > most ? span.to : most, spans[0].to);
  const whole = Math.max(Number(last - first), 1);
  const children = Map.groupBy ? Map.groupBy(spans, (span) => span.parentSpanId) : group(spans);
  const known = new Set(spans.map((span) => span.spanId));
  const ordered = [];
  const walk = (span, depth) => { ordered.push([span, depth]); (children.get(span.spanId) ?? []).forEach((child) => walk(child, depth + 1)); };
  spans.filter((span) => !span.parentSpanId || !known.has(span.parentSpanId)).forEach((span) => walk(span, 0));
  const detail = h('div', { 'aria-live': 'polite' });
  const failed = spans.filter((span) => span.status === 'error').length;
  const entities = [...new Set(spans.map((span) => span.attributes['entity.key'] ?? span.attributes.entity).filter(Boolean))];
  const lines = ordered.slice(0, DRAWN_MAX).map(([span, depth]) => {
    const left = Number(span.from - first) / whole * 100, width = Number(span.to - span.from) / whole * 100;
    const tone = span.status === 'error' ? 'bad' : span.isLost ? 'warn' : Number(span.criticalNs) ? 'critical' : '';
    const name = h('button', { class: 'plain', style: `padding:0 0 0 ${depth * 12}px;text-align:left`, onclick: () => tell(span) }, span.name, span.node ? h('span', { class: 'quiet small' }, ` node ${span.node}`) : h('span', { class: 'quiet small' }, ` ${span.service}`));
    return [name, h('div', { class: 'track', title: span.error || span.name }, h('div', { class: `span ${tone}`, style: `left:${left.toFixed(3)}%;width:${Math.max(width, .15).toFixed(3)}%` })), h('span', { class: 'quiet number' }, duration(Number(span.to - span.from) / MS))];
  });
  function tell(span) {
    put(detail, panel(span.name, facts([
      ['Service', span.service], span.node ? ['Node', span.node] : null, ['Began', `+${duration(Number(span.from - first) / MS)}`], ['Took', duration(Number(span.to - span.from) / MS)],
      Number(span.criticalNs) ? ['On the critical path', duration(span.criticalNs / MS)] : null,
      ['Status', pill(span.status, span.status === 'error' ? 'bad' : 'good')], span.error && ['Why', span.error], span.isLost ? ['Lost', 'Whoever did this was gone before it could tell; its times are those of what it caused.'] : null,
      ...Object.entries(span.attributes).map(([name, value]) => [name, /^[a-z_]+\/\S+$/.test(value) ? entityLink(value) : h('span', { class: 'mono' }, value)]),
      ...span.links.map((link) => ['Caused by', h('a', { class: 'mono', href: `#/traces/${link.traceId}` }, link.traceId)]),
    ])));
    detail.scrollIntoView({ block: 'nearest' });
  }
  const events = new Table([
    { title: 'At', cell: (event) => `+${duration(Number(BigInt(event.atUnixNs) - first) / MS)}` }, { title: 'Entity', cell: (event) => entityLink(event.entity) }, { title: 'Version', number: true, cell: (event) => event.version }, { title: 'Event', cell: (event) => event.name },
  ], { label: 'Events written by it', empty: 'It has written nothing.' });
  events.update(trace.events);
  const logs = new Table([
    { title: 'At', cell: (line) => `+${duration(Number(BigInt(line.atUnixNs) - first) / MS)}` }, { title: 'Node', number: true, cell: (line) => line.node }, { title: 'Level', cell: (line) => line.level }, { title: 'Line', cell: (line) => line.text },
  ], { label: 'Log lines', empty: 'No log line names it.' });
  logs.update(trace.logs);
  put(place,
    trace.unavailableNodes.length ? h('div', { class: 'note warn' }, `Node ${trace.unavailableNodes.join(', ')} did not answer; spans may be missing.`) : null,
    trace.droppedSpans ? h('div', { class: 'note warn' }, `${trace.droppedSpans} spans more were not kept.`) : null,
    panel(null, h('div', { class: 'row' }, h('b', {}, ordered[0][0].name), pill(failed ? `${failed} spans failed` : 'ok', failed ? 'bad' : 'good'), h('span', {}, `${spans.length} spans, ${duration(whole / MS)}, began `), time(Number(first / 1_000_000n))),
      h('p', { class: 'small' }, entities.slice(0, 12).map((key) => [/^(checkout|return)\//.test(key) ? sagaLink(key) : entityLink(key), ' '])),
      h('div', { class: 'timeline', style: 'grid-template-columns:minmax(150px,32%) minmax(0,1fr) max-content' }, lines), ordered.length > DRAWN_MAX && h('p', { class: 'quiet' }, `${ordered.length - DRAWN_MAX} more are not drawn; \`playhouse trace show ${id}\` has all.`),
      h('p', { class: 'legend' }, h('span', {}, h('i', { style: 'background:var(--chart-3)' }), 'critical path'), h('span', {}, h('i', { style: 'background:var(--bad)' }), 'failed'), h('span', {}, h('i', { style: 'background:var(--chart-1)' }), 'beside it'))),
    detail, h('div', { class: 'grid' }, panel('Written by it', events.element), panel('Logged by it', logs.element)));
}
function group(spans) { const all = new Map(); spans.forEach((span) => all.set(span.parentSpanId, [...all.get(span.parentSpanId) ?? [], span])); return all; }
