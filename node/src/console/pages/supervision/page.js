// Supervision: how failures are met, which breakers are open, who is quarantined.

import { call, poll } from '/console/shell/api.js';
import { Table, action, duration, entityLink, failure, h, panel, pill, put, time } from '/console/shell/ui.js';

const LOOK_MS = 1_500;
const toneOf = (state) => ({ closed: 'good', open: 'bad', 'half-open': 'warn' })[state] ?? '';

export async function show(place, { signal, isOperator }) {
  const trouble = h('div');
  const force = (breaker, forced, label) => action(label, async () => {
    await call('playhouse.cluster.v1.Admin/ForceBreaker', { dependency: breaker.dependency, forced }, { signal });
    await look();
    return `The breakers to ${breaker.dependency} are ${forced === 'auto' ? 'left to themselves' : `forced ${forced}`}, on all nodes`;
  }, { disabled: !isOperator || breaker.forced === forced, ask: forced === 'open' ? [`Open the breakers to ${breaker.dependency}?`, 'No call is made to it until they are closed again; what needs it waits.'] : undefined });
  const breakers = new Table([
    { title: 'Dependency', cell: (breaker) => breaker.dependency },
    { title: 'Node', number: true, cell: (breaker) => breaker.node },
    { title: 'State', cell: (breaker) => h('span', {}, pill(breaker.state, toneOf(breaker.state)), breaker.forced !== 'auto' && pill(`forced ${breaker.forced}`, 'warn')) },
    { title: 'Failures in a row', number: true, small: false, cell: (breaker) => breaker.failures },
    { title: 'Opens again in', number: true, small: false, cell: (breaker) => Number(breaker.openLeftMs) ? duration(breaker.openLeftMs) : '–' },
    { title: 'Under way', number: true, cell: (breaker) => breaker.inFlight },
  ], { key: (breaker) => `${breaker.dependency} ${breaker.node}`, label: 'Breakers', empty: 'No dependency outside has been called yet.' });
  const forcing = h('div');
  const quarantined = new Table([
    { title: 'Entity', cell: (entity) => entityLink(entity.key) },
    { title: 'Failed at', cell: (entity) => entity.stage },
    { title: 'Why', cell: (entity) => h('span', { title: entity.place }, entity.reason) },
    { title: 'Failures', number: true, cell: (entity) => entity.failures },
    { title: 'Since', cell: (entity) => time(entity.sinceUnixMs) },
  ], { key: (entity) => entity.key, label: 'Quarantined entities', empty: 'Nobody is quarantined.' });
  const failing = new Table([
    { title: 'Entity', cell: (entity) => entityLink(entity.key) },
    { title: 'Breaker', cell: (entity) => pill(entity.breaker, toneOf(entity.breaker)) },
    { title: 'Failures', number: true, cell: (entity) => entity.failures },
    { title: 'Why', cell: (entity) => entity.reason },
    { title: 'Comes back in', number: true, cell: (entity) => duration(entity.retryAfterMs) },
  ], { key: (entity) => entity.key, label: 'Failing entities', empty: 'Nobody has failed lately.' });
  const policies = new Table([
    { title: 'Of', cell: (policy) => policy.of },
    { title: 'Name', cell: (policy) => h('b', {}, policy.name) },
    { title: 'Restarts', cell: (policy) => policy.intensityMax ? `${policy.intensityMax} in ${duration(policy.intensityWithinMs)}` : 'without limit' },
    { title: 'Backoff', cell: (policy) => `${duration(policy.backoffFirstMs)} to ${duration(policy.backoffMaxMs)}, ±${policy.jitterPercent} %` },
    { title: 'Breaker', cell: (policy) => `${policy.breakerFailuresMax} failures, ${duration(policy.breakerOpenMs)}` },
    { title: 'At a time', number: true, small: false, cell: (policy) => Number(policy.inFlightMax) || '–' },
    { title: 'Quarantine after', number: true, small: false, cell: (policy) => policy.quarantineAfter || 'never' },
  ], { key: (policy) => `${policy.of} ${policy.name}`, label: 'Policies' });
  put(place, trouble, panel('Breakers to the outside', breakers.element, forcing), panel('Quarantine', quarantined.element), panel('Failing just now', failing.element), panel('Policies', policies.element));
  let dependencies = '';
  async function look() {
    const [status, quarantine] = await Promise.all([call('playhouse.cluster.v1.Admin/Status', {}, { signal }), call('playhouse.cluster.v1.Admin/ListQuarantine', {}, { signal })]);
    breakers.update(status.breakers);
    quarantined.update(quarantine.entities);
    failing.update(quarantine.failing);
    const now = JSON.stringify(status.breakers.map((breaker) => [breaker.dependency, breaker.forced]));
    if (now !== dependencies) {
      dependencies = now;
      const each = [...new Map(status.breakers.map((breaker) => [breaker.dependency, breaker])).values()];
      put(forcing, each.map((breaker) => h('div', { class: 'row' }, h('span', {}, breaker.dependency), force(breaker, 'open', 'Open'), force(breaker, 'closed', 'Close'), force(breaker, 'auto', 'Leave to itself'))));
    }
    put(trouble, quarantine.unreachableNodes.length ? h('div', { class: 'note warn' }, `Nodes ${quarantine.unreachableNodes.join(', ')} do not answer: what they lead is missing here.`) : null);
  }
  policies.update((await call('playhouse.cluster.v1.Admin/Supervision', {}, { signal })).policies);
  poll(LOOK_MS, signal, look, (fault) => put(trouble, failure(fault)));
}
