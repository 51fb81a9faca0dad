// Cluster: nodes and what they hold, how far replicas are behind, what is moving; and trouble on purpose, where that is allowed.

import { call, poll } from '/console/shell/api.js';
import { Table, action, bytes, count, duration, failure, h, panel, pill, put, say } from '/console/shell/ui.js';
import { Flow } from './flow.js';
import { Trials } from './trials.js';

const LOOK_MS = 1_000;
/** Entries that a replica may be behind without being marked. */
const LAG_MARKED = 200;
const STANDING = { serving: 'STANDING_SERVING', cordoned: 'STANDING_CORDONED', draining: 'STANDING_DRAINING' };

export async function show(place, { signal, isOperator }) {
  const trouble = h('div'), summary = h('div', { class: 'tiles' }), map = h('div', { class: 'nodes' });
  const trials = new Trials(signal, isOperator), flow = new Flow();
  const shards = new Table([
    { title: 'Shard', number: true, cell: (shard) => shard.id },
    { title: 'Leader', cell: (shard) => shard.leader ? `node ${shard.leader}` : pill('none', 'bad') },
    { title: 'Term', number: true, small: false, cell: (shard) => shard.term },
    { title: 'Replicas', cell: (shard) => h('span', {}, shard.replicas.map((node) => { const lag = Number(shard.lag[node] ?? 0); return [pill(node === shard.leader ? `${node} leads` : lag ? `${node}: −${lag}` : `${node}`, node === shard.leader ? 'good' : lag > LAG_MARKED ? 'warn' : ''), ' ']; }), isMoving(shard) && pill(`to ${shard.home.join(', ')}`, 'warn')) },
    { title: 'Entities', number: true, cell: (shard) => count(shard.entities) },
    { title: 'Applied', number: true, small: false, cell: (shard) => shard.applied },
    { title: 'Since checkpoint', number: true, small: false, cell: (shard) => count(shard.applied - shard.checkpoint) },
    { title: 'Outbox', number: true, cell: (shard) => count(shard.outbox) },
    { title: 'Timers', number: true, small: false, cell: (shard) => Number(shard.timersOverdueMs) > 1_000 ? `${shard.timers}, late by ${duration(shard.timersOverdueMs)}` : count(shard.timers) },
    { title: 'Commit', small: false, cell: (shard) => commit(shard.commit) },
  ], { key: (shard) => shard.id, label: 'Shards' });
  put(place, trouble, summary, panel('Nodes', map, h('p', { class: 'small quiet' }, 'A filled number is a shard that the node leads, a pale one a replica. Commit is queue + sync + majority + apply, as running means.')), flow.element, trials.element, panel('Shards', shards.element));
  const tiles = ['Nodes up', 'Shards led', 'Entities', 'Open effects', 'Moves left'].map((name) => { const value = h('b', {}, '–'); const tile = h('div', { class: 'tile' }, value, h('span', {}, name)); summary.append(tile); return { value, tile }; });
  const cards = new Map();
  function look(status) {
    const up = status.nodes.filter((node) => node.up).length, led = status.shards.filter((shard) => shard.leader).length;
    const sum = (name) => status.shards.reduce((all, shard) => all + Number(shard[name]), 0);
    [`${up} of ${status.nodes.length}`, `${led} of ${status.shards.length}`, count(sum('entities')), count(sum('outbox')), status.movesLeft].forEach((text, at) => say(tiles[at].value, text));
    tiles[0].tile.classList.toggle('bad', up < status.nodes.length);
    tiles[1].tile.classList.toggle('bad', led < status.shards.length);
    tiles[4].tile.classList.toggle('warn', status.movesLeft > 0);
    for (const node of status.nodes) {
      if (!cards.has(node.id)) { cards.set(node.id, new Card(node.id, signal, isOperator, trials)); map.append(cards.get(node.id).element); }
      cards.get(node.id).update(node, status);
    }
    for (const [id, card] of cards) { if (!status.nodes.some((node) => node.id === id)) { card.element.remove(); cards.delete(id); } }
    flow.update(status.nodes);
    shards.update(status.shards);
    trials.learn(status);
    const cut = status.nodes.flatMap((node) => node.links.filter((link) => !link.up && status.nodes.some((other) => other.id === link.to && other.up)).map((link) => `node ${node.id} does not reach node ${link.to}`));
    put(trouble, led < status.shards.length && h('div', { class: 'note bad', role: 'alert' }, `${status.shards.length - led} shards have no leader: what belongs to them is refused until a majority of their replicas is back.`),
      cut.length > 0 && h('div', { class: 'note bad', role: 'alert' }, `The network is cut: ${cut.join(', ')}.`));
  }
  poll(LOOK_MS, signal, async () => look(await call('playhouse.cluster.v1.Admin/Status', {}, { signal, answerMax: 2_500 })), (fault) => put(trouble, failure(fault)));
}

const isMoving = (shard) => shard.home.length && (shard.home.length !== shard.replicas.length || shard.home.some((node) => !shard.replicas.includes(node)));
const commit = (times) => times && Number(times.syncUs) ? ['queueUs', 'syncUs', 'majorityUs', 'applyUs'].map((part) => (times[part] / 1_000).toFixed(1)).join(' + ') + ' ms' : '–';

/** One node: what it holds and what can be done with it. */
class Card {
  constructor(id, signal, isOperator, trials) {
    this.id = id;
    this.state = h('span');
    this.shards = h('div', { class: 'shards', 'aria-label': `Shards of node ${id}` });
    this.facts = h('div', { class: 'small quiet' });
    this.told = '';
    const stand = (standing, label, ask) => action(label, async () => {
      await call('playhouse.cluster.v1.Admin/SetStanding', { node: id, standing: STANDING[standing] }, { signal });
      return `Node ${id} is ${standing}`;
    }, { disabled: !isOperator, ask });
    this.standing = h('div', { class: 'row' }, stand('cordoned', 'Cordon'), stand('draining', 'Drain', [`Drain node ${id}?`, 'It gives away its replicas and leaderships to the others; nothing is lost and clients do not notice.']), stand('serving', 'Use for all'));
    this.element = h('article', { class: 'node' }, h('h2', {}, `Node ${id} `, this.state), this.shards, this.facts, this.standing, trials.buttons(id));
  }

  update(node, status) {
    const held = status.shards.filter((shard) => shard.replicas.includes(this.id));
    this.element.classList.toggle('down', !node.up);
    const state = JSON.stringify([node.up, node.standing, node.unwell]);
    if (state !== this.told) {
      this.told = state;
      put(this.state, node.up ? pill('up', 'good') : pill('does not answer', 'bad'), ' ', node.standing !== 'serving' && pill(node.standing, 'warn'), node.unwell && pill(node.unwell, 'warn'));
    }
    const marks = held.map((shard) => {
      const leads = shard.leader === this.id, lag = Number(shard.lag[this.id] ?? 0);
      return [shard.id, !node.up ? 'shard lost' : leads ? 'shard leads' : lag > LAG_MARKED ? 'shard behind' : 'shard', leads ? `leads shard ${shard.id}` : `replica of shard ${shard.id}, ${lag} entries behind`];
    });
    while (this.shards.children.length > marks.length) this.shards.lastChild.remove();
    marks.forEach(([id, kind, title], at) => {
      const mark = this.shards.children[at] ?? this.shards.appendChild(h('span'));
      if (mark.className !== kind) mark.className = kind;
      if (mark.title !== title) mark.title = title;
      say(mark, id);
    });
    say(this.facts, node.up ? `${node.address} · pid ${node.pid} · ${node.version} · up ${duration(node.uptimeMs)} · ${bytes(node.residentBytes)} · ${count(node.activations)} live · sync ${(node.times.syncMeanUs / 1_000).toFixed(1)} ms` : `${node.address} · it held ${held.length} replicas`);
  }
}
