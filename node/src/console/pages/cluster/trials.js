// Trouble on purpose, and what comes of it: how long shards did not answer, and whether what must hold still holds. Only where the nodes
// allow it, as those of `playhouse up` do.

import { call, callAt, listenAt, urlOf } from '/console/shell/api.js';
import { Table, action, duration, failure, h, pill, put, say, time } from '/console/shell/ui.js';

const FAULT_LASTS_MS = 10_000, PAUSE_LASTS_MS = 3_000, CHECK_MS = 3_000, TRIALS_LEN_MAX = 20, SLOW_SYNC_MS = 200;
/** An outage is a fault's if it began while the fault was there, or so long after. */
const AFTERWARDS_MS = 3_000;

export class Trials {
  constructor(signal, isOperator) {
    Object.assign(this, { signal, isOperator, nodes: [], trials: [], isAllowed: null, outages: new Map(), watched: new Set() });
    this.nodeButtons = [];
    this.note = h('p', { class: 'quiet small' });
    this.table = new Table([
      { title: 'When', cell: (trial) => time(trial.at) },
      { title: 'What', cell: (trial) => trial.what },
      { title: 'Shards without an answer', number: true, cell: (trial) => this.hurt(trial).length || 'none' },
      { title: 'Longest', number: true, cell: (trial) => { const hurt = this.hurt(trial); return hurt.length ? pill(duration(Math.max(...hurt.map((outage) => outage.lasted))), Math.max(...hurt.map((outage) => outage.lasted)) > 1_500 ? 'warn' : '') : '–'; } },
    ], { key: (trial) => trial.number, label: 'Trials', empty: 'Nothing has been done yet. Kill a node and see how long its shards are away.' });
    this.table.update([]);
    this.invariants = new Map();
    this.checks = h('div', { class: 'row' });
    this.provider = h('div', { class: 'row' });
    this.element = h('section', { class: 'panel', hidden: true }, h('h2', {}, 'Trouble on purpose'), this.provider, this.checks, this.table.element, this.note);
    this.fillProvider();
    this.begin();
  }

  /** Whether trials are allowed, and then the reads of all shards, from every node. */
  async begin() {
    try {
      await call('playhouse.chaos.v1.Chaos/ListFaults', {}, { signal: this.signal });
      this.isAllowed = true;
    } catch { this.isAllowed = false; }
    if (this.signal.aborted) return;
    this.element.hidden = !this.isAllowed;
    this.nodeButtons.forEach((row) => { row.hidden = !this.isAllowed; });
    if (!this.isAllowed) return;
    this.check();
    const timer = setInterval(() => this.check(), CHECK_MS);
    this.signal.addEventListener('abort', () => clearInterval(timer));
  }

  learn(status) {
    this.nodes = status.nodes;
    if (!this.isAllowed) return;
    for (const node of status.nodes) {
      if (!node.http || this.watched.has(node.id)) continue;
      this.watched.add(node.id);
      listenAt(urlOf(node), 'playhouse.chaos.v1.Chaos/WatchShards', {}, (said) => this.hear(node.id, said), { signal: this.signal });
    }
    this.holds('every shard is led', status.shards.every((shard) => shard.leader), `${status.shards.filter((shard) => !shard.leader).length} are not`);
  }

  hear(observer, said) {
    for (const outage of said.outages) {
      const from = Number(outage.fromUnixMs);
      this.outages.set(`${observer} ${outage.shard} ${from}`, { observer, shard: outage.shard, from, lasted: Number(outage.lastedMs) });
    }
    const oldest = Date.now() - 900_000;
    for (const [key, outage] of this.outages) { if (outage.from < oldest) this.outages.delete(key); }
    if (said.outages.length) this.table.update(this.trials);
  }

  /** What a trial did to shards: for each the shortest time that a node saw which was not itself the one in trouble. A client has the choice. */
  hurt(trial) {
    const until = trial.at + trial.lasts + AFTERWARDS_MS;
    const others = this.nodes.filter((node) => node.id !== trial.node).length;
    const by = new Map();
    for (const outage of this.outages.values()) {
      if (outage.observer === trial.node || outage.from < trial.at - 1_000 || outage.from > until) continue;
      const seen = by.get(outage.shard) ?? new Map();
      seen.set(outage.observer, Math.max(seen.get(outage.observer) ?? 0, outage.lasted));
      by.set(outage.shard, seen);
    }
    const seenByAll = [...by].filter(([, seen]) => seen.size >= Math.max(1, others));
    return seenByAll.map(([shard, seen]) => ({ shard, lasted: Math.min(...seen.values()) }));
  }

  took(what, node, lasts) {
    this.trials.unshift({ number: (this.trials[0]?.number ?? 0) + 1, at: Date.now(), what, node, lasts });
    this.trials.length = Math.min(this.trials.length, TRIALS_LEN_MAX);
    this.table.update(this.trials);
  }

  /** Asks a node that is not the one in trouble. */
  other(node) {
    const found = this.nodes.find((other) => other.up && other.http && other.id !== node);
    return found && urlOf(found);
  }

  order(node, order, what, lasts = 0) {
    return async () => {
      this.took(what, node, lasts);
      await callAt(this.other(node), 'playhouse.chaos.v1.Chaos/OrderNode', { node, order: `NODE_ORDER_${order}` }, { signal: this.signal, answerMax: 30_000 });
      if (order === 'PAUSE') setTimeout(() => callAt(this.other(node), 'playhouse.chaos.v1.Chaos/OrderNode', { node, order: 'NODE_ORDER_RESUME' }).catch(() => {}), lasts);
      return what;
    };
  }

  /** Both ends of each link are told: a connection belongs to who opened it. */
  cutOff(node) {
    return async () => {
      this.took(`node ${node} was cut off for ${FAULT_LASTS_MS / 1_000} s`, node, FAULT_LASTS_MS);
      const others = this.nodes.filter((other) => other.id !== node && other.up && other.http);
      const cut = (peer) => ({ cut: { peer, direction: 'DIRECTION_BOTH' } });
      const own = this.nodes.find((other) => other.id === node);
      await Promise.all([
        callAt(urlOf(own), 'playhouse.chaos.v1.Chaos/SetFaults', { faults: others.map((other) => cut(other.id)), lastsMs: FAULT_LASTS_MS }),
        ...others.map((other) => callAt(urlOf(other), 'playhouse.chaos.v1.Chaos/SetFaults', { faults: [cut(node)], lastsMs: FAULT_LASTS_MS })),
      ]);
      return `Node ${node} is cut off for ${FAULT_LASTS_MS / 1_000} s`;
    };
  }

  slowDisk(node) {
    return async () => {
      this.took(`node ${node} had a slow disk for ${FAULT_LASTS_MS / 1_000} s`, node, FAULT_LASTS_MS);
      const own = this.nodes.find((other) => other.id === node);
      await callAt(urlOf(own), 'playhouse.chaos.v1.Chaos/SetFaults', { faults: [{ slowSync: { delayMs: SLOW_SYNC_MS } }], lastsMs: FAULT_LASTS_MS });
      return `Each sync of node ${node} takes ${SLOW_SYNC_MS} ms longer, for ${FAULT_LASTS_MS / 1_000} s`;
    };
  }

  /** The buttons at a node. */
  buttons(node) {
    const options = { disabled: !this.isOperator };
    const row = h('div', { class: 'row', hidden: !this.isAllowed, role: 'group', 'aria-label': `Trouble for node ${node}` },
      action('Kill', this.order(node, 'KILL', `node ${node} was killed`), { ...options, tone: 'danger' }),
      action('Start', this.order(node, 'START', `node ${node} was started`), options),
      action('Pause', this.order(node, 'PAUSE', `node ${node} stood still for ${PAUSE_LASTS_MS / 1_000} s`, PAUSE_LASTS_MS), options),
      action('Cut off', this.cutOff(node), options),
      action('Slow disk', this.slowDisk(node), options));
    this.nodeButtons.push(row);
    return row;
  }

  fillProvider() {
    const set = (label, outage, percent, what) => action(label, async () => {
      await call('playhouse.chaos.v1.Chaos/SetProvider', { outage, errorPercent: percent }, { signal: this.signal });
      this.took(what, 0, 0);
      return what;
    }, { disabled: !this.isOperator });
    put(this.provider, h('span', {}, 'Payment provider: '), set('Down', true, 0, 'the provider is down'), set('Half of its calls fail', false, 50, 'half of the provider’s calls fail'), set('Well', false, 0, 'the provider is well'));
  }

  holds(name, isGood, detail) {
    let mark = this.invariants.get(name);
    if (!mark) { mark = pill(name); this.invariants.set(name, mark); this.checks.append(mark); }
    mark.className = `pill ${isGood ? 'good' : 'bad'}`;
    say(mark, isGood ? `✓ ${name}` : `✗ ${name}: ${detail}`);
  }

  /** What must hold all the time, as far as it can be seen from here; `playhouse verify` and `playhouse chaos` look at all of it. */
  async check() {
    if (document.hidden || this.signal.aborted) return;
    try {
      const [digests, stuck, quarantine] = await Promise.all([
        call('playhouse.cluster.v1.Admin/Digests', {}, { signal: this.signal }),
        call('playhouse.saga.v1.Sagas/ListSagas', { state: 'stuck', limit: 10 }, { signal: this.signal }),
        call('playhouse.cluster.v1.Admin/ListQuarantine', {}, { signal: this.signal }),
      ]);
      const unequal = digests.shards.filter((shard) => { const by = new Map(); return shard.replicas.filter((replica) => !replica.error).some((replica) => { const known = by.get(replica.applied); by.set(replica.applied, replica.digest); return known !== undefined && known !== replica.digest; }); });
      this.holds('replicas are equal', !unequal.length, `shards ${unequal.map((shard) => shard.shard).join(', ')} are not`);
      this.holds('no saga needs help', !stuck.sagas.length, stuck.sagas.map((saga) => saga.key).join(', '));
      this.holds('nobody is quarantined', !quarantine.entities.length, quarantine.entities.map((entity) => entity.key).slice(0, 5).join(', '));
      put(this.note, 'Reads of every shard run from every node while this page is open. ', h('code', {}, 'playhouse verify'), ' compares money, stock and orders; ', h('code', {}, 'playhouse chaos'), ' checks every promise under random faults.');
    } catch (fault) { if (!this.signal.aborted) put(this.note, failure(fault)); }
  }
}
