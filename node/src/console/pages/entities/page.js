// Entities: find one by kind and id, look through a kind, or ask a read model; `#/entities/KIND/ID` shows one.

import { call, lines } from '/console/shell/api.js';
import { Table, choice, encodeKey, entityLink, failure, h, panel, put } from '/console/shell/ui.js';
import { showEntity } from './entity.js';
import { showQuery } from './query.js';

/** Rows that are read at a time: what a screen holds, and some more. */
const PAGE_LEN = 100;
/** Rows that a search looks at before it asks whether to go on. */
const LOOKED_AT_MAX = 20_000;

export async function show(place, context) {
  if (context.parts.length >= 2) return showEntity(place, context, context.parts.join('/'));
  const { query, signal } = context;
  const body = h('div');
  const way = choice([['kind', 'By kind and id'], ['model', 'By a read model']], query.has('model') ? 'model' : 'kind', (chosen) => { location.hash = chosen === 'model' ? '#/entities?model' : '#/entities'; });
  put(place, h('div', { class: 'row' }, way), body);
  return query.has('model') ? showQuery(body, context) : showKinds(body, query, signal);
}

async function showKinds(place, query, signal) {
  const { policies } = await call('playhouse.cluster.v1.Admin/Supervision', {}, { signal });
  const kinds = policies.filter((policy) => policy.of === 'entity').map((policy) => policy.name).sort();
  const kind = query.get('kind') ?? (kinds.includes('order') ? 'order' : kinds[0]);
  const id = h('input', { class: 'grow', placeholder: 'id, for example demo-teapot', 'aria-label': 'Id of the entity', autofocus: true });
  const of = h('select', { 'aria-label': 'Kind of entity' }, kinds.map((name) => h('option', { value: name, selected: name === kind }, name)));
  const go = (event) => {
    event.preventDefault();
    const text = id.value.trim();
    if (text) location.hash = `#/entities/${encodeKey(text.includes('/') ? text : `${of.value}/${text}`)}`;
  };
  const listArea = h('div');
  put(place,
    h('form', { class: 'row', onsubmit: go, role: 'search' }, of, id, h('button', { class: 'main' }, 'Show')),
    panel(null, h('div', { class: 'row' }, choice(kinds.map((name) => [name, name]), kind, (name) => { location.hash = `#/entities?kind=${encodeURIComponent(name)}`; })), listArea));
  await list(listArea, kind, query.get('q') ?? '', signal);
}

/** The entities of a kind, shard by shard, as far as one scrolls: streams stay open and are read on when more is wanted. */
async function list(place, kind, text, signal) {
  const { shards } = await call('playhouse.cluster.v1.Admin/Status', {}, { signal });
  const found = [];
  const table = new Table([
    { title: 'Entity', cell: (row) => entityLink(`${row.kind}/${row.id}`) },
    { title: 'Version', number: true, cell: (row) => row.version },
    { title: 'Open effects', number: true, small: false, cell: (row) => row.outbox },
    { title: 'State', cell: (row) => h('span', { class: 'mono small quiet' }, row.stateJson.slice(0, 140)) },
  ], { key: (row) => row.id, label: `Entities of the kind ${kind}`, empty: text ? `No ${kind} with “${text}” in its id or state.` : `There is no ${kind} yet.` });
  const note = h('p', { class: 'quiet small', role: 'status' });
  const more = h('button', { onclick: () => read() }, 'More');
  const filter = h('input', { class: 'grow', type: 'search', value: text, placeholder: 'filter by a text in id or state', 'aria-label': 'Filter' });
  const search = (event) => { event.preventDefault(); location.hash = `#/entities?kind=${encodeURIComponent(kind)}&q=${encodeURIComponent(filter.value.trim())}`; };
  put(place, h('form', { class: 'row', onsubmit: search }, filter, h('button', {}, 'Filter')), table.element, h('div', { class: 'row' }, more, note));
  const rows = (async function* () {
    for (const shard of shards) yield* lines('playhouse.cluster.v1.Admin/ScanEntities', { shard: shard.id, kind }, { signal });
  })();
  let lookedAt = 0;
  const sought = text.toLowerCase();
  async function read() {
    more.disabled = true;
    const until = found.length + PAGE_LEN, lookUntil = lookedAt + LOOKED_AT_MAX;
    let isDone = false;
    try {
      while (found.length < until && lookedAt < lookUntil) {
        const next = await rows.next();
        if (next.done) { isDone = true; break; }
        lookedAt++;
        const row = next.value;
        if (!sought || row.id.toLowerCase().includes(sought) || row.stateJson.toLowerCase().includes(sought)) found.push(row);
      }
    } catch (fault) {
      if (signal.aborted) return;
      place.append(failure(fault, () => list(place, kind, text, signal)));
      isDone = true;
    }
    table.update(found);
    note.textContent = isDone ? `${found.length} in all${sought ? ` of ${lookedAt}` : ''}` : `${found.length} shown${sought ? `, ${lookedAt} looked at` : ''}; more follow`;
    more.disabled = isDone;
    more.hidden = isDone;
  }
  await read();
}
