// One entity: its state at any version, what changed, who asked for it, what it waits for, and what it belongs to.

import { call, callWith, lines, poll } from '/console/shell/api.js';
import { Table, action, duration, entityLink, facts, failure, h, panel, parse, pill, put, sagaLink, sagaState, say, time, traceLink, tree } from '/console/shell/ui.js';

/** Events that are shown; older ones are reached with the slider. */
const EVENTS_LEN_MAX = 500;
const LOOK_MS = 2_000;

export async function showEntity(place, { signal, heading, isOperator }, key) {
  put(heading, h('a', { href: '#/entities' }, 'Entities'), ' / ', h('span', { class: 'mono' }, key));
  const id = key.slice(key.indexOf('/') + 1);
  let entity;
  try {
    entity = await call('playhouse.cluster.v1.Admin/ShowEntity', { key }, { signal });
  } catch (fault) {
    const trouble = h('div');
    put(place, failure(fault, () => showEntity(place, { signal, heading, isOperator }, key)), trouble);
    return quarantine(trouble, key, signal, isOperator);
  }
  const trouble = h('div'), summary = h('section', { class: 'panel' }), related = h('p');
  const state = h('div'), changes = h('div'), at = h('span', { class: 'quiet small' });
  const slider = h('input', { type: 'range', min: 0, max: entity.version, value: entity.version, 'aria-label': 'Version' });
  const label = h('output', { class: 'mono' });
  const events = new Table([
    { title: 'Version', number: true, cell: (event) => h('a', { href: 'javascript:', onclick: (click) => { click.preventDefault(); seek(event.version); } }, event.version) },
    { title: 'Event', cell: (event) => h('b', {}, event.name) },
    { title: 'When', cell: (event) => time(event.atUnixMs) },
    { title: 'For', small: false, cell: (event) => h('span', { title: event.requestId }, event.askedBy || shortened(event.requestId)) },
    { title: 'Trace', cell: (event) => traceLink(event.traceId) },
    { title: 'What', cell: (event) => h('span', { class: 'mono small' }, event.json === 'null' ? '' : event.json.slice(0, 220)) },
  ], { key: (event) => event.version, label: 'Events', empty: 'No event has reached it.' });
  const timers = new Table([
    { title: 'Timer', cell: (timer) => timer.name }, { title: 'Due', cell: (timer) => time(timer.dueUnixMs) },
    { title: 'Every', cell: (timer) => Number(timer.everyMs) ? duration(timer.everyMs) : 'once' }, { title: 'Late by', cell: (timer) => Number(timer.overdueMs) ? pill(duration(timer.overdueMs), 'warn') : '–' },
    { title: 'Set by', small: false, cell: (timer) => traceLink(timer.traceId) },
  ], { key: (timer) => timer.name, label: 'Timers', empty: 'No timer is set.' });
  const outbox = new Table([
    { title: 'To', cell: (effect) => effect.target.includes('/') ? entityLink(effect.target) : effect.target },
    { title: 'Effect', small: false, cell: (effect) => h('span', { class: 'mono small' }, effect.id) },
    { title: 'Tries', number: true, cell: (effect) => effect.attempts },
    { title: 'Waits for', cell: (effect) => effect.waitsFor || 'its answer' },
  ], { key: (effect) => effect.id, label: 'Outbox', empty: 'Nothing is on its way.' });
  put(place, trouble, summary,
    h('div', { class: 'grid' },
      panel('State', h('div', { class: 'row' }, h('button', { onclick: () => seek(Number(slider.value) - 1), 'aria-label': 'One version back' }, '‹'), h('span', { class: 'grow' }, slider), h('button', { onclick: () => seek(Number(slider.value) + 1), 'aria-label': 'One version on' }, '›'), label), at, state),
      panel('What this version changed', changes)),
    panel('Events', events.element),
    h('div', { class: 'grid' }, panel('Timers', timers.element), panel('Outbox', outbox.element)),
    panel('Belongs to', related, h('p', { class: 'small quiet' }, 'Decide its history again with another build, without changing anything: ', h('code', {}, `playhouse entity replay ${key}`))));

  let follows = true, shown = -1, wanted = Number(entity.version);
  function seek(version) {
    wanted = Math.max(0, Math.min(Number(entity.version), Number(version)));
    follows = wanted === Number(entity.version);
    slider.value = wanted;
    say(label, `${wanted} of ${entity.version}`);
    showVersion();
  }
  slider.addEventListener('input', () => seek(slider.value));
  let isShowing = false;
  async function showVersion() {
    if (isShowing || shown === wanted) return;
    isShowing = true;
    while (shown !== wanted && !signal.aborted) {
      const version = wanted;
      try {
        if (version === 0) { put(state, h('p', { class: 'quiet' }, 'Nothing had happened yet.')); put(changes); put(at, ''); }
        else {
          const [then, diff] = await Promise.all([
            version === Number(entity.version) ? { stateJson: entity.stateJson } : call('playhouse.history.v1.History/ShowAt', { key, at: { version } }, { signal }),
            call('playhouse.history.v1.History/Diff', { key, before: { version: version - 1 }, after: { version } }, { signal }),
          ]);
          put(at, 'as decided at ', time(diff.after.atUnixMs));
          put(state, tree(parse(then.stateJson), { changed: new Set(diff.changes.map((change) => change.path)) }));
          put(changes, diff.changes.length ? h('table', {}, h('tbody', {}, diff.changes.map((change) => h('tr', {}, h('td', { class: 'mono' }, change.path || '(all)'), h('td', { class: 'mono quiet' }, shortJson(change.beforeJson)), h('td', {}, '→'), h('td', { class: 'mono' }, shortJson(change.afterJson)))))) : h('p', { class: 'quiet' }, 'Nothing in the state.'));
        }
        shown = version;
      } catch (fault) {
        if (signal.aborted) return;
        put(changes, failure(fault));
        shown = version;
      }
    }
    isShowing = false;
  }

  let toldVersion = -1;
  async function tell() {
    put(summary, facts([
      ['Version', entity.version], ['Shard', h('a', { href: '#/cluster' }, entity.shard)], ['Leader', `node ${entity.leader}, term ${entity.term}`],
      ['Read', Number(entity.stalenessUs) ? `at most ${duration(entity.stalenessUs / 1000)} old, from node ${entity.answeredBy}` : `linearizable, from node ${entity.answeredBy}`],
    ]));
    timers.update(entity.timers);
    outbox.update(entity.outbox);
    if (toldVersion !== entity.version) {
      toldVersion = entity.version;
      slider.max = entity.version;
      if (follows) seek(entity.version); else say(label, `${wanted} of ${entity.version}`);
      const all = [];
      const after = Math.max(0, Number(entity.version) - EVENTS_LEN_MAX);
      for await (const page of lines('playhouse.history.v1.History/Events', { key, afterVersion: after }, { signal })) all.push(...page.events);
      events.update(all.reverse());
      await relate(all);
    }
  }
  async function relate(all) {
    const traces = [...new Set(all.map((event) => event.traceId).filter(Boolean))].slice(0, 8);
    let saga = null;
    try { saga = (await call('playhouse.saga.v1.Sagas/ShowSaga', { saga: id }, { signal })).saga; } catch { /* none has its id */ }
    put(related, saga ? ['Saga ', sagaLink(saga.key), ' ', sagaState(saga.state), h('br')] : null,
      traces.length ? ['Traces ', traces.map((trace) => [traceLink(trace), ' ']), h('br')] : 'No trace is kept in its last events.',
      ' ', h('a', { href: `#/traces?entity=${encodeURIComponent(key)}` }, 'all its traces'), ' · ', h('a', { href: `#/logs?entity=${encodeURIComponent(key)}` }, 'its log lines'));
  }
  await tell();
  await quarantine(trouble, key, signal, isOperator);
  poll(LOOK_MS, signal, async () => {
    const now = await call('playhouse.cluster.v1.Admin/ShowEntity', { key }, { signal });
    if (now.version === entity.version && now.leader === entity.leader && JSON.stringify(now.outbox) === JSON.stringify(entity.outbox) && JSON.stringify(now.timers) === JSON.stringify(entity.timers)) return;
    entity = now;
    await tell();
  }, (fault) => put(trouble, failure(fault)));
}

const shortened = (text) => text.length > 26 ? `${text.slice(0, 24)}…` : text;
const shortJson = (json) => json === undefined || json === null ? '–' : json.length > 160 ? `${json.slice(0, 158)}…` : json;

/** What it failed at, if it is quarantined, with retry and skip. */
export async function quarantine(place, key, signal, isOperator) {
  let told;
  try { told = await call('playhouse.cluster.v1.Admin/ShowQuarantine', { key }, { signal }); } catch { return put(place); }
  if (!told.isQuarantined) return put(place);
  const { entity } = told;
  const lift = (method) => async () => {
    const { answer } = await callWith(`playhouse.cluster.v1.Admin/${method}`, { key }, { signal });
    await quarantine(place, key, signal, isOperator);
    return answer.lifted ? `${key} goes on` : `It failed again: ${answer.failure}`;
  };
  put(place, h('section', { class: 'note bad' }, h('b', {}, 'Quarantined'), ` after ${entity.failures} failures at ${entity.stage}: ${entity.reason}`,
    h('details', {}, h('summary', {}, 'Command and backtrace'), told.commandJson && tree(parse(told.commandJson)), h('pre', {}, told.backtrace)),
    h('div', { class: 'row' },
      action('Retry', lift('RetryQuarantined'), { disabled: !isOperator, title: 'Decides the command once more' }),
      action('Skip the command', lift('SkipQuarantined'), { disabled: !isOperator, tone: 'danger', ask: [`Skip this command of ${key}?`, 'It is never decided, also when its sender repeats it.'] }),
      traceLink(told.traceId))));
}
