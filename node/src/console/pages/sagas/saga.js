// One saga: the steps it took and how long each was, what it waits for and why, what comes next, and what undo would do.

import { call, lines, poll } from '/console/shell/api.js';
import { action, duration, entityLink, facts, failure, h, panel, parse, pill, put, sagaState, time, traceLink, tree } from '/console/shell/ui.js';

const LOOK_MS = 1_500;
const target = (name) => name.includes('/') ? entityLink(name) : h('b', {}, name);

export async function showSaga(place, { signal, heading, isOperator }, key) {
  put(heading, h('a', { href: '#/sagas' }, 'Sagas'), ' / ', h('span', { class: 'mono' }, key));
  const top = h('div'), waits = h('div'), course = h('div'), plan = h('div'), trouble = h('div'), state = h('div');
  put(place, trouble, top, waits, panel('Course', course), h('div', { class: 'grid' }, panel('Still to come', plan), panel('State', state)));
  let told = '', version = '';
  async function read() {
    const { saga: explained, nowUnixMs } = await call('playhouse.saga.v1.Sagas/ExplainSaga', { saga: key }, { signal });
    const { saga } = explained;
    put(trouble);
    const nudge = action('Nudge', async () => {
      const answer = await call('playhouse.saga.v1.Sagas/NudgeSaga', { saga: saga.key }, { signal });
      return `What waited is tried now; ${answer.key} is ${answer.state}`;
    }, { disabled: !isOperator || ['completed', 'undone'].includes(saga.state), title: 'Has what waits to be tried again tried now' });
    const isOver = ['completed', 'undone'].includes(saga.state);
    const now = JSON.stringify([explained, isOver ? 0 : Math.floor(Number(nowUnixMs) / 1_000)]);
    if (now === told) return;
    told = now;
    put(top, h('section', { class: 'panel' }, h('div', { class: 'row' }, sagaState(saga.state), h('b', {}, saga.stage), saga.reason && h('span', {}, `turned back: ${saga.reason}`), h('span', { class: 'spring' }), nudge),
      facts([
        ['Started', time(saga.startedUnixMs)],
        [isOver ? 'Ended' : 'There since', [time(saga.sinceUnixMs), ` (${isOver ? `took ${duration(saga.sinceUnixMs - saga.startedUnixMs)}` : duration(nowUnixMs - saga.sinceUnixMs)})`]],
        Number(explained.stageDeadlineUnixMs) ? ['Deadline of the stage', time(explained.stageDeadlineUnixMs)] : null,
        Number(explained.overallDeadlineUnixMs) ? ['Deadline of all', time(explained.overallDeadlineUnixMs)] : null,
        ['As an entity', entityLink(saga.key)],
        explained.problems.length ? ['Could not be done', explained.problems.map((problem) => h('div', {}, `${problem.step}: ${problem.reason}`))] : null,
        explained.overdue.length ? ['Not waited for', explained.overdue.join(', ')] : null,
      ])));
    put(waits, explained.waiting.length ? panel('Why it waits', explained.waiting.map((step) => h('div', { class: `note ${step.failure ? 'warn' : ''}` },
      h('b', {}, `${step.undo ? 'undo of ' : ''}${step.step}`), ' asks ', target(step.target), `: try ${step.attempt}${step.attemptsMax ? ` of ${step.attemptsMax}` : ''}`,
      Number(step.againUnixMs) ? [', again at ', time(step.againUnixMs)] : ', on its way', step.failure && h('div', {}, `the try before failed: ${step.failure}`),
      step.links.map((link) => h('div', { class: 'small' }, '↳ ', target(link.from), ' waits for ', link.toService ? h('a', { href: '#/supervision' }, link.to) : target(link.to),
        link.attempts ? `, tried ${link.attempts} times` : '', link.waitsFor && `: ${link.waitsFor}`, link.trouble && [' ', pill(link.trouble, 'bad')],
        Number(link.retryAfterMs) ? `, again in ${duration(link.retryAfterMs)}` : '', link.timers.map((timer) => h('span', { class: 'quiet' }, ` · gives up at `, time(timer.dueUnixMs), ` (${timer.name})`))))))) : null);
    put(plan, explained.next.length ? stages(explained.next) : h('p', { class: 'quiet' }, isOver ? 'Nothing: it has ended.' : 'Nothing more.'),
      explained.undo.length ? [h('h3', {}, explained.canTurnBack ? 'Undo would do' : 'To be undone'), stages(explained.undo)] : null);
    put(state, tree(parse(explained.stateJson), { open: 1 }));
    if (version !== explained.version) {
      version = explained.version;
      const events = [];
      for await (const page of lines('playhouse.history.v1.History/Events', { key: saga.key }, { signal })) events.push(...page.events);
      put(course, timeline(events));
    }
  }
  try { await read(); } catch (fault) { put(trouble, failure(fault, () => showSaga(place, { signal, heading, isOperator }, key))); }
  poll(LOOK_MS, signal, read, (fault) => put(trouble, failure(fault)));
}

const stages = (list) => h('ol', {}, list.map((stage) => h('li', {}, h('b', {}, stage.stage), stage.isPointOfNoReturn && [' ', pill('point of no return')],
  stage.steps.map((step) => h('div', { class: 'small' }, step.step, ' at ', target(step.target))))));

/** Each event of the saga as the end of a span that began with the one before. */
function timeline(events) {
  if (!events.length) return h('p', { class: 'quiet' }, 'Nothing has happened yet.');
  const first = Number(events[0].atUnixMs), last = Number(events.at(-1).atUnixMs), whole = Math.max(last - first, 1);
  const began = {};
  const rows = events.map((event, at) => {
    const content = parse(event.json);
    const step = content?.step ?? content?.stage ?? '';
    const end = Number(event.atUnixMs), start = began[step] ?? (at ? Number(events[at - 1].atUnixMs) : end);
    if (step) began[step] = end;
    const tone = /Refused|Failed|Problem|GivenUp/.test(event.name) ? 'bad' : /Undo|Retr|Again/.test(event.name) ? 'warn' : '';
    return [h('span', {}, h('b', {}, event.name), ' ', step), h('div', { class: 'track', title: `${duration(end - start)}, ${event.json}` }, h('div', { class: `span ${tone}`, style: `left:${((start - first) / whole * 99).toFixed(2)}%;width:${Math.max(.4, (end - start) / whole * 99).toFixed(2)}%` })),
      h('span', { class: 'quiet' }, `+${duration(end - first)} `, traceLink(event.traceId))];
  });
  return h('div', { class: 'timeline' }, rows);
}
