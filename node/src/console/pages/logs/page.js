// Logs of all nodes, merged by time, as they come.

import { call, listen } from '/console/shell/api.js';
import { action, failure, h, panel, put, time, traceLink, entityLink } from '/console/shell/ui.js';

/** Lines that are shown; the oldest go. */
const SHOWN_MAX = 1_000;
const FIRST_LINES = 300;

export async function show(place, { query, signal, isOperator }) {
  const filter = { level: query.get('level') ?? '', nodes: query.get('node') ? [Number(query.get('node'))] : [], target: query.get('target') ?? '', text: query.get('text') ?? '', traceId: query.get('trace') ?? '', entity: query.get('entity') ?? '' };
  const field = (name, label, properties = {}) => h('label', {}, h('span', { class: 'small quiet' }, label), h('input', { name, value: query.get(name) ?? '', size: 14, ...properties }));
  const level = h('select', { name: 'level', 'aria-label': 'Level' }, ['', 'error', 'warn', 'info', 'debug', 'trace'].map((name) => h('option', { value: name, selected: name === filter.level }, name ? `${name} and graver` : 'any level')));
  const search = (event) => { event.preventDefault(); location.hash = `#/logs?${new URLSearchParams([...new FormData(event.target)].filter(([, value]) => value))}`; };
  const log = h('div', { class: 'log', role: 'log', 'aria-label': 'Log lines' });
  const note = h('p', { class: 'quiet small', role: 'status' }, 'Waiting for lines…');
  const trouble = h('div');
  let isPaused = false;
  const pause = h('button', { onclick: () => { isPaused = !isPaused; pause.textContent = isPaused ? 'Go on' : 'Hold'; if (!isPaused) flush(); } }, 'Hold');
  const directives = h('input', { placeholder: 'info,cluster=debug', 'aria-label': 'Level of what is written' });
  const set = action('Set', async () => {
    const answer = await call('playhouse.telemetry.v1.Logs/SetLevel', { directives: directives.value.trim() }, { signal });
    return `Written now: ${answer.nodes.map((node) => `node ${node.node} ${node.now}`).join(', ')}`;
  }, { disabled: !isOperator });
  put(place, h('form', { class: 'row', onsubmit: search, role: 'search' }, level, field('text', 'text '), field('node', 'node ', { size: 3, inputmode: 'numeric' }), field('target', 'target ', { placeholder: 'cluster::shard' }), field('entity', 'entity ', { placeholder: 'order/42' }), field('trace', 'trace '), h('button', { class: 'main' }, 'Filter'), pause),
    trouble, panel(null, note, log), panel('What is written', h('p', { class: 'small' }, 'Until a node stops: a level, and others for targets.'), h('div', { class: 'row' }, directives, set)));
  const held = [];
  let shown = 0, frame = 0;
  /** The newest line stands at the top, so that reading is not pushed away by what comes; lines are put in once a frame. */
  function flush() {
    frame = 0;
    if (isPaused) return;
    const rows = held.splice(0).reverse().flatMap((cells) => cells);
    log.prepend(...rows);
    while (log.children.length > SHOWN_MAX * 4) log.lastChild.remove();
    note.textContent = `${shown} lines came; the newest first${shown > SHOWN_MAX ? `, the latest ${SHOWN_MAX} are shown` : ''}`;
  }
  const later = () => { frame ||= requestAnimationFrame(flush); };
  const entry = (line) => {
    const extra = Object.entries(line.fields).map(([name, value]) => `${name}=${value}`).join(' ');
    return [time(Number(BigInt(line.atUnixNs) / 1_000_000n)), h('span', { class: line.level.toUpperCase() }, `${line.node} ${line.level}`), h('span', { class: 'quiet target' }, line.target),
      h('span', {}, line.message, extra && h('span', { class: 'quiet' }, ` ${extra}`), line.entity && [' ', entityLink(line.entity)], line.traceId && [' ', traceLink(line.traceId)])];
  };
  listen('playhouse.telemetry.v1.Logs/Follow', () => ({ filter, last: shown ? 0 : FIRST_LINES }), ({ line, notice }) => {
    shown++;
    if (line) held.push(entry(line));
    if (notice) {
      const said = { away: `node ${notice.node} does not answer: ${notice.reason}`, back: `node ${notice.node} is back`, dropped: `${notice.dropped} lines of node ${notice.node} came too fast and are not shown` }[notice.what];
      held.push([h('span'), h('span', { class: 'WARN' }, '–'), h('span', { class: 'target' }), h('span', { class: 'WARN' }, said)]);
    }
    if (held.length > SHOWN_MAX) held.splice(0, held.length - SHOWN_MAX);
    put(trouble);
    later();
  }, { signal, onFault: (fault) => put(trouble, failure(fault)) });
}
