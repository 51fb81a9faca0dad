// Settings: who belongs to the cluster, what this node runs with, who we are.

import { call, here, keepToken } from '/console/shell/api.js';
import { Table, facts, failure, h, panel, pill, put } from '/console/shell/ui.js';

export async function show(place, { signal, isOperator }) {
  const members = new Table([
    { title: 'Node', number: true, cell: (node) => node.id }, { title: 'gRPC', cell: (node) => h('span', { class: 'mono' }, node.address) },
    { title: 'HTTP', cell: (node) => node.http ? h('a', { class: 'mono', href: `http://${node.http}/` }, node.http) : '–' },
    { title: 'Version', cell: (node) => node.version || '–' }, { title: 'Standing', cell: (node) => pill(node.up ? node.standing : 'does not answer', node.up ? '' : 'bad') },
  ], { key: (node) => node.id, label: 'Members' });
  const config = h('div'), schemas = h('div');
  const leave = h('button', { onclick: () => { keepToken(null); location.reload(); } }, 'Forget my token');
  put(place,
    panel('Who you are', facts([['Rights', isOperator ? 'operator: may change things' : 'reader: may look'], ['Asked node', here()]]), h('div', { class: 'row', style: 'margin-top:10px' }, leave),
      h('p', { class: 'small quiet' }, 'Tokens stand in the table ', h('code', {}, 'http'), ' of a node’s config file. There is no TLS yet: let no network that you do not trust reach a node. ', h('code', {}, 'playhouse console'), ' prints a link for another browser on the machine of ', h('code', {}, 'playhouse up'), '.')),
    panel('Members', members.element), panel('What this node runs with', config), panel('Stored versions', schemas));
  try {
    const [status, told, schema] = await Promise.all([call('playhouse.cluster.v1.Admin/Status', {}, { signal }), call('playhouse.cluster.v1.Admin/ShowConfig', {}, { signal }), call('playhouse.schema.v1.Schemas/Describe', {}, { signal })]);
    members.update(status.nodes);
    put(config, h('p', { class: 'small quiet' }, `Node ${told.node}, every value in force; set in its config file, read when it starts.`), h('pre', {}, told.toml));
    put(schemas, h('details', {}, h('summary', {}, 'Kinds and the versions of what is stored of them'), h('pre', {}, JSON.stringify(schema, null, 2))));
  } catch (fault) { if (!signal.aborted) put(config, failure(fault)); }
}
