// Entities by a question to a read model: each list of the answer as a table, with links where the model is fed by one kind alone.

import { call } from '/console/shell/api.js';
import { Table, duration, empty, entityLink, failure, h, panel, parse, put, time, tree } from '/console/shell/ui.js';

/** Rows of a list that are shown; a model gives pages where it has more. */
const ROWS_MAX = 1_000;
const CELL_LEN_MAX = 120;

export async function showQuery(place, { query, signal }) {
  const { projections } = await call('playhouse.projection.v1.Projections/ListProjections', {}, { signal });
  const models = projections.filter((model) => !model.isFormer);
  if (!models.length) return put(place, empty('This cluster keeps no read model.'));
  const asked = models.find((model) => model.name === query.get('model')) ?? models[0];
  const model = h('select', { 'aria-label': 'Read model' }, models.map(({ name }) => h('option', { value: name, selected: name === asked.name }, name)));
  const question = h('input', { class: 'grow mono', value: query.get('ask') ?? '{}', 'aria-label': 'Question as JSON', spellcheck: 'false', autofocus: true });
  const answer = h('div');
  const ask = (event) => { event.preventDefault(); location.hash = link(model.value, question.value.trim() || '{}'); };
  put(place, h('form', { class: 'row', onsubmit: ask, role: 'search' }, model, question, h('button', { class: 'main' }, 'Ask')),
    h('p', { class: 'small quiet' }, `${asked.name} is fed by ${asked.kinds.join(', ')}. A question with a field that it does not know is told which there are.`), answer);
  try {
    const told = await call('playhouse.projection.v1.Projections/QueryProjection', { name: asked.name, queryJson: question.value }, { signal });
    put(answer, parts(parse(told.answerJson), asked, parse(question.value)),
      h('p', { class: 'small quiet' }, told.stalenessUs === undefined ? 'How old this may be is not known.' : `At most ${duration(told.stalenessUs / 1_000)} old.`));
  } catch (fault) { if (!signal.aborted) put(answer, failure(fault)); }
}

const link = (model, ask) => `#/entities?model=${encodeURIComponent(model)}&ask=${encodeURIComponent(ask)}`;

function parts(answer, model, question) {
  if (answer === null || typeof answer !== 'object') return panel(null, tree(answer));
  const lists = Object.entries(answer).filter(([, part]) => Array.isArray(part) && part.every((row) => row !== null && typeof row === 'object'));
  const rest = Object.fromEntries(Object.entries(answer).filter(([name, part]) => part !== null && !lists.some(([list]) => list === name)));
  const next = typeof answer.next === 'string' && typeof question === 'object' ? h('p', {}, h('a', { href: link(model.name, JSON.stringify({ ...question, after: answer.next })) }, 'Next page')) : null;
  return [lists.map(([name, rows]) => panel(name, list(name, rows, model))), Object.keys(rest).length > 0 && panel(lists.length ? 'And' : null, tree(rest)), next];
}

function list(name, rows, model) {
  const known = [...new Set(rows.slice(0, 50).flatMap(Object.keys))];
  const names = [...known.filter((column) => column === 'id'), ...known.filter((column) => column !== 'id')];
  const table = new Table(names.map((column, at) => ({
    title: column.replace(/_ms$/, '').replaceAll('_', ' '), small: at < 4 ? undefined : false, number: rows.some((row) => typeof row[column] === 'number') && !column.endsWith('_ms'),
    cell: (row) => cell(column, row[column], model),
  })), { key: (row) => row.id ?? JSON.stringify(row), label: name, empty: 'Nothing matches.' });
  table.update(rows.slice(0, ROWS_MAX));
  return table.element;
}

function cell(column, value, model) {
  if (value === null || value === undefined) return h('span', { class: 'quiet' }, '–');
  if (column === 'id' && model.kinds.length === 1) return entityLink(`${model.kinds[0]}/${value}`);
  if (column.endsWith('_ms')) return time(value);
  return typeof value === 'object' ? h('span', { class: 'mono small' }, JSON.stringify(value).slice(0, CELL_LEN_MAX)) : String(value);
}
