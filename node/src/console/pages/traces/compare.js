// Two traces, by where they spent their time.

import { call } from '/console/shell/api.js';
import { Table, duration, failure, h, panel, pill, put } from '/console/shell/ui.js';

const MS = 1e6;
const signed = (ns) => `${ns < 0 ? '−' : '+'}${duration(Math.abs(ns) / MS)}`;

export async function showComparison(place, { signal, heading }, before, after) {
  put(heading, h('a', { href: '#/traces' }, 'Traces'), ' / two compared');
  let told;
  try { told = await call('playhouse.telemetry.v1.Traces/Compare', { beforeTraceId: before, afterTraceId: after }, { signal }); } catch (fault) { return put(place, failure(fault)); }
  const one = (title, trace) => panel(title, h('p', {}, h('a', { class: 'mono', href: `#/traces/${trace.traceId}` }, trace.traceId)), h('p', {}, trace.root, ' ', duration((trace.endUnixNs - trace.startUnixNs) / MS), `, ${trace.spans} spans `, trace.errors > 0 && pill(`${trace.errors} failed`, 'bad')));
  const table = new Table([
    { title: 'Span', cell: (row) => row.name },
    { title: 'Count', number: true, cell: (row) => `${row.before?.count ?? 0} → ${row.after?.count ?? 0}` },
    { title: 'In it before', number: true, cell: (row) => duration((row.before?.selfNs ?? 0) / MS) },
    { title: 'In it after', number: true, cell: (row) => duration((row.after?.selfNs ?? 0) / MS) },
    { title: 'Difference', number: true, cell: (row) => pill(signed(Number(row.selfDifferenceNs)), row.selfDifferenceNs > 0 ? 'warn' : row.selfDifferenceNs < 0 ? 'good' : '') },
  ], { label: 'By the names of spans', empty: 'Neither has a span.' });
  table.update(told.names);
  put(place, h('div', { class: 'grid' }, one('First', told.before), one('Second', told.after)), panel('Time within the spans themselves, without what they waited for', table.element));
}
