// Overview: how the cluster is doing just now and in the last minutes.

import { call, listen, poll } from '/console/shell/api.js';
import { Chart } from '/console/shell/chart.js';
import { Table, bytes, count, duration, failure, h, panel, pill, put, say, time, traceLink } from '/console/shell/ui.js';

const METRICS = 'playhouse.telemetry.v1.Metrics';
/** Points that are kept: what the charts show, and a little more. */
const KEPT_MS = 310_000, SLO_MS = 5_000, LONGEST_MAX = 8;
const rate = (value) => value < 10 ? value.toFixed(1) : String(Math.round(value));
const ms = (value) => duration(value);

export async function show(place, { signal }) {
  const trouble = h('div'), tiles = h('div', { class: 'tiles' }), objectives = h('div', { class: 'grid' }), charts = h('div', { class: 'grid' });
  const longest = new Table([
    { title: 'Call', cell: (exemplar) => exemplar.method },
    { title: 'Took', number: true, cell: (exemplar) => ms(exemplar.seconds * 1_000) },
    { title: 'Trace', cell: (exemplar) => traceLink(exemplar.traceId) },
    { title: 'Ended', cell: (exemplar) => time(exemplar.endedUnixMs) },
  ], { key: (exemplar) => exemplar.method, label: 'Calls that took long', empty: 'No trace was kept in the last five minutes: one of a hundred calls is, and those that fail or are slow.' });
  const points = new Map();
  const shown = [
    ['Orders a second', 'orders_per_s', rate], ['Commands a second', 'commands_per_s', rate], ['Half of the commands within', 'command_p50_ms', ms], ['99 of 100 within', 'command_p99_ms', ms],
    ['Errors a second', 'command_errors_per_s', rate, (value) => value > 0 && 'bad'], ['Open breakers', 'breakers_open', count, (value) => value > 0 && 'warn', '#/supervision'],
    ['Quarantined', 'quarantined', count, (value) => value > 0 && 'bad', '#/supervision'], ['Effects on their way', 'outbox', count], ['Live entities', 'live_entities', count], ['Memory of all nodes', 'resident_bytes', bytes],
  ].map(([name, series, text, tone, href]) => {
    const value = h('b', {}, '–'), tile = h(href ? 'a' : 'div', { class: 'tile', href, style: 'color:inherit' }, value, h('span', {}, name));
    tiles.append(tile);
    return { series, text, tone, value, tile };
  });
  const line = (name, series, colour) => ({ name, series, colour: `chart-${colour}` });
  const drawn = [
    ['Orders and commands a second', [line('orders', 'orders_per_s', 1), line('commands', 'commands_per_s', 2)], rate],
    ['How long commands take', [line('50 %', 'command_p50_ms', 2), line('95 %', 'command_p95_ms', 1), line('99 %', 'command_p99_ms', 3)], ms],
    ['Not answered a second', [line('errors', 'command_errors_per_s', 3), line('rejected by the domain', 'command_rejections_per_s', 4), line('refused by a limit', 'refused_per_s', 1)], rate],
    ['Sagas a second', [line('completed', 'sagas_completed_per_s', 2), line('undone', 'sagas_undone_per_s', 4)], rate],
    ['A commit’s parts', [line('queue', 'commit_queue_ms', 4), line('sync', 'commit_sync_ms', 1), line('network', 'commit_network_ms', 2), line('apply', 'commit_apply_ms', 3)], ms],
    ['Processors kept busy', [line('cores', 'cpu_cores', 1)], (value) => value.toFixed(1)],
  ].map(([title, lines, text]) => { const chart = new Chart(title, lines, { show: text }); charts.append(chart.element); return { chart, lines }; });
  put(place, trouble, tiles, objectives, charts, panel('Calls that took long, in their traces', longest.element));

  let newest = 0;
  listen(`${METRICS}/Watch`, () => ({ sinceUnixMs: newest || Date.now() - KEPT_MS }), (said) => {
    const now = Number(said.nowUnixMs);
    for (const series of said.series) {
      if (series.node) continue;
      const known = points.get(series.name) ?? [];
      series.values.forEach((value, place) => {
        const at = Number(series.firstUnixMs) + place * said.stepMs;
        const number = Number(value);
        if (!known.length || at > known.at(-1)[0]) known.push([at, Number.isFinite(number) ? number : null]);
        newest = Math.max(newest, at);
      });
      while (known.length && known[0][0] < now - KEPT_MS) known.shift();
      points.set(series.name, known);
    }
    for (const { series, text, tone, value, tile } of shown) {
      const last = points.get(series)?.at(-1)?.[1];
      say(value, last === null || last === undefined ? '–' : text(last));
      const mood = last ? tone?.(last) : '';
      tile.className = `tile ${mood || ''}`.trim();
    }
    for (const { chart, lines } of drawn) chart.update(lines.map(({ series }) => points.get(series) ?? []), now);
    const silent = said.unanswered.map((node) => node.node);
    put(trouble, silent.length ? h('div', { class: 'note warn', role: 'status' }, `Node ${silent.join(', ')} ${silent.length > 1 ? 'do' : 'does'} not answer: what ${silent.length > 1 ? 'they have' : 'it has'} seen is missing in these figures. `, h('a', { href: '#/cluster' }, 'Cluster')) : null);
  }, { signal, onFault: (fault) => put(trouble, failure(fault)) });

  poll(SLO_MS, signal, async () => {
    const { exemplars } = await call(`${METRICS}/Exemplars`, { sinceUnixMs: Date.now() - KEPT_MS }, { signal });
    // They come with the longest first.
    const methods = new Map();
    for (const exemplar of exemplars) if (!methods.has(exemplar.method)) methods.set(exemplar.method, exemplar);
    longest.update([...methods.values()].slice(0, LONGEST_MAX));
  });

  poll(SLO_MS, signal, async () => {
    const { objectives: all } = await call(`${METRICS}/Objectives`, {}, { signal });
    const told = JSON.stringify(all);
    if (objectives.dataset.told === told) return;
    objectives.dataset.told = told;
    put(objectives, all.map((objective) => panel([objective.name, ' ', pill(objective.state, { met: 'good', burning: 'warn', exhausted: 'bad' }[objective.state])],
      h('p', { class: 'small quiet' }, `${(objective.target * 100).toFixed(2).replace(/0+$/, '').replace(/\.$/, '')} % of the commands: ${objective.about}`),
      h('table', {}, h('thead', {}, h('tr', {}, h('th', {}, 'In the last'), h('th', { class: 'number' }, 'Good'), h('th', { class: 'number' }, 'Of'), h('th', { class: 'number' }, 'Budget used'))),
        h('tbody', {}, objective.windows.map((window) => h('tr', {}, h('td', {}, duration(window.lengthS * 1_000), window.coveredS < window.lengthS && h('span', { class: 'quiet small' }, ` (since ${duration(window.coveredS * 1_000)})`)),
          h('td', { class: 'number' }, Number(window.total) ? `${(window.good / window.total * 100).toFixed(3)} %` : '–'), h('td', { class: 'number' }, count(window.total)), h('td', { class: 'number' }, `${window.burnRate.toFixed(2)} ×`))))))));
  });
}
