// Who calls whom, how often and how long, computed from the traces that are kept.

import { call, poll } from '/console/shell/api.js';
import { Table, count, duration, failure, h, panel, pill, put } from '/console/shell/ui.js';

const LOOK_MS = 5_000, MS = 1e6, SVG = 'http://www.w3.org/2000/svg';
const WIDTH = 900, ROW = 56, BOX = 150;

export async function showGraph(place, { signal, heading }) {
  put(heading, h('a', { href: '#/traces' }, 'Traces'), ' / who calls whom');
  const picture = h('div', { class: 'scroll' }), note = h('p', { class: 'quiet small' }), trouble = h('div');
  const table = new Table([
    { title: 'From', cell: (edge) => edge.from }, { title: 'To', cell: (edge) => edge.to }, { title: 'Calls', number: true, cell: (edge) => count(edge.calls) }, { title: 'A second', number: true, cell: (edge) => Number(edge.perS).toFixed(1) },
    { title: 'Failed', number: true, cell: (edge) => Number(edge.errors) ? pill(edge.errors, 'bad') : '0' }, { title: 'Half within', number: true, small: false, cell: (edge) => duration(edge.p50Ns / MS) }, { title: '99 % within', number: true, cell: (edge) => duration(edge.p99Ns / MS) },
  ], { key: (edge) => `${edge.from} ${edge.to}`, label: 'Calls', empty: 'No trace is kept yet. Place an order: `playhouse order place`.' });
  put(place, trouble, panel(null, picture, note), panel('Calls', table.element));
  let shape = '';
  poll(LOOK_MS, signal, async () => {
    const graph = await call('playhouse.telemetry.v1.Traces/Graph', {}, { signal });
    put(trouble);
    table.update(graph.edges);
    note.textContent = `From ${graph.traces} traces of the last 15 minutes: a sample of all requests.`;
    const now = JSON.stringify([graph.nodes.map((node) => node.name), graph.edges.map((edge) => [edge.from, edge.to, Number(edge.errors) > 0])]);
    if (now !== shape) { shape = now; put(picture, draw(graph)); }
  }, (fault) => put(trouble, failure(fault)));
}

/** Columns by the longest way from who is called by nobody; a call back to an earlier column is a curve below. */
function draw({ nodes, edges }) {
  const depth = new Map(nodes.map((node) => [node.name, 0]));
  for (let round = 0; round < nodes.length; round++) {
    for (const { from, to } of edges) { if (from !== to && depth.get(to) < depth.get(from) + 1 && depth.get(from) < 4 && !edges.some((back) => back.from === to && back.to === from && depth.get(to) > 0)) depth.set(to, depth.get(from) + 1); }
  }
  const columns = Math.max(0, ...depth.values()) + 1, rows = new Map(), at = new Map();
  for (const node of nodes) {
    const column = depth.get(node.name), row = rows.get(column) ?? 0;
    rows.set(column, row + 1);
    at.set(node.name, [column * (WIDTH - BOX) / Math.max(columns - 1, 1), row * ROW + 10]);
  }
  const height = Math.max(...[...rows.values(), 1]) * ROW + 20;
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', `0 0 ${WIDTH} ${height}`);
  svg.setAttribute('role', 'img');
  svg.setAttribute('aria-label', 'Who calls whom; the table below says the same');
  svg.style.cssText = 'width:100%;min-width:640px;display:block';
  const add = (tag, attributes, text) => { const element = document.createElementNS(SVG, tag); Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value)); if (text) element.textContent = text; svg.append(element); return element; };
  for (const edge of edges) {
    if (!at.has(edge.from) || !at.has(edge.to) || edge.from === edge.to) continue;
    const [x1, y1] = at.get(edge.from), [x2, y2] = at.get(edge.to);
    const forward = x2 > x1;
    const [sx, sy, ex, ey] = forward ? [x1 + BOX, y1 + 17, x2, y2 + 17] : [x1 + BOX / 2, y1 + 34, x2 + BOX / 2, y2 + 34];
    const path = forward ? `M${sx} ${sy}C${(sx + ex) / 2} ${sy} ${(sx + ex) / 2} ${ey} ${ex} ${ey}` : `M${sx} ${sy}C${sx} ${sy + 22} ${ex} ${ey + 22} ${ex} ${ey}`;
    add('path', { d: path, fill: 'none', stroke: Number(edge.errors) ? 'var(--bad)' : 'var(--quiet)', 'stroke-width': Math.min(4, 1 + Math.log10(Number(edge.calls) + 1)), opacity: .55 });
  }
  for (const node of nodes) {
    const [x, y] = at.get(node.name);
    add('rect', { x, y, width: BOX, height: 34, rx: 8, fill: 'var(--panel)', stroke: { saga: 'var(--accent)', outside: 'var(--chart-4)', edge: 'var(--chart-2)' }[node.kind] ?? 'var(--line)', 'stroke-width': 1.6 });
    add('text', { x: x + BOX / 2, y: y + 21, 'text-anchor': 'middle', fill: Number(node.errors) ? 'var(--bad)' : 'var(--text)', 'font-size': 13 }, node.name);
  }
  return svg;
}
