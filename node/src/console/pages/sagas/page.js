// Sagas: by state and age; `#/sagas/KIND/ID` tells one.

import { call, poll } from '/console/shell/api.js';
import { Table, choice, duration, failure, h, panel, put, sagaLink, sagaState, time } from '/console/shell/ui.js';
import { showSaga } from './saga.js';

const STATES = [['', 'all'], ['running', 'running'], ['undoing', 'undoing'], ['stuck', 'need help'], ['completed', 'completed'], ['undone', 'undone']];
const AGES = [['0', 'any age'], ['10000', 'older than 10 s'], ['60000', 'older than 1 min'], ['600000', 'older than 10 min'], ['3600000', 'older than 1 h']];
const PAGE_LEN = 100, LOOK_MS = 3_000;

export async function show(place, context) {
  if (context.parts.length >= 2) return showSaga(place, context, context.parts.join('/'));
  const { query, signal } = context;
  const state = query.get('state') ?? '', older = query.get('older') ?? '0';
  const to = (change) => { location.hash = `#/sagas?${new URLSearchParams({ state, older, ...change })}`; };
  const table = new Table([
    { title: 'Saga', cell: (saga) => sagaLink(saga.key) },
    { title: 'State', cell: (saga) => sagaState(saga.state) },
    { title: 'Stage', cell: (saga) => saga.stage },
    { title: 'Waits for', number: true, small: false, cell: (saga) => saga.waiting || '–' },
    { title: 'Started', small: false, cell: (saga) => time(saga.startedUnixMs) },
    { title: 'There since', cell: (saga) => time(saga.sinceUnixMs) },
    { title: 'Took', number: true, cell: (saga) => ['completed', 'undone'].includes(saga.state) ? duration(saga.sinceUnixMs - saga.startedUnixMs) : '' },
    { title: 'Why', cell: (saga) => saga.reason },
  ], { key: (saga) => saga.key, label: 'Sagas', empty: state ? 'No saga is in this state.' : 'There is no saga yet. An order starts one: `playhouse order place`.' });
  const trouble = h('div'), note = h('span', { class: 'quiet small', role: 'status' });
  const more = h('button', { hidden: true, onclick: () => read(true) }, 'More');
  const age = h('select', { 'aria-label': 'Age', onchange: () => to({ older: age.value }) }, AGES.map(([value, label]) => h('option', { value, selected: value === older }, label)));
  put(place, h('div', { class: 'row' }, choice(STATES, state, (chosen) => to({ state: chosen })), age), panel(null, trouble, table.element, h('div', { class: 'row' }, more, note)));
  let sagas = [], next = '', reads = 1;
  /** What is shown is read anew, or one page more of it. */
  async function read(isMore) {
    if (isMore) reads++;
    const found = [];
    next = '';
    let pages = 0;
    do {
      const answer = await call('playhouse.saga.v1.Sagas/ListSagas', { state, olderThanMs: older, limit: PAGE_LEN, page: next }, { signal });
      found.push(...answer.sagas);
      next = answer.nextPage;
    } while (next && found.length < reads * PAGE_LEN && ++pages < 40 * reads);
    sagas = found;
    table.update(sagas);
    more.hidden = !next;
    note.textContent = `${sagas.length} shown${next ? '; more follow' : ''}`;
    put(trouble);
  }
  try { await read(false); } catch (fault) { put(trouble, failure(fault)); }
  poll(LOOK_MS, signal, () => reads > 3 ? undefined : read(false), (fault) => put(trouble, failure(fault)));
}
