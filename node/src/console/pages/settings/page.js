// Settings: who belongs to the cluster, which certificates its nodes show, what this node runs with, who we are.

import { certificates } from './certificates.js';
import { call, here, keepToken, token, urlOf } from '/console/shell/api.js';
import { Table, facts, failure, h, panel, pill, put } from '/console/shell/ui.js';

export async function show(place, { signal, isOperator, name }) {
  const members = new Table([
    { title: 'Node', number: true, cell: (node) => node.id }, { title: 'gRPC', cell: (node) => h('span', { class: 'mono' }, node.address) },
    { title: 'HTTP', cell: (node) => node.http ? h('a', { class: 'mono', href: `${urlOf(node)}/` }, node.http) : '–' },
    { title: 'Version', cell: (node) => node.version || '–' }, { title: 'Standing', cell: (node) => pill(node.up ? node.standing : 'does not answer', node.up ? '' : 'bad') },
  ], { key: (node) => node.id, label: 'Members' });
  const config = h('div'), schemas = h('div'), shown = h('div');
  const leave = h('button', { onclick: () => { keepToken(null); location.reload(); } }, 'Forget my token');
  put(place,
    panel('Who you are', facts([['Rights', isOperator ? 'operator: may change things' : 'reader: may look'], ['Known by', name ? `the client certificate of ${name}` : 'a token'], ['Asked node', here()]]), token() && h('div', { class: 'row', style: 'margin-top:10px' }, leave),
      h('p', { class: 'small quiet' }, 'Tokens stand in the table ', h('code', {}, 'http'), ' of a node’s config file, names of client certificates in ', h('code', {}, 'http.tls'), '. What nodes and gRPC clients say to each other has no TLS: let no network that you do not trust reach those ports. ', h('code', {}, 'playhouse console'), ' prints a link for another browser on the machine of ', h('code', {}, 'playhouse up'), '.')),
    panel('Members', members.element), panel('Certificates', shown), panel('What this node runs with', config), panel('Stored versions', schemas));
  try {
    const [status, told, schema, nodes] = await Promise.all([call('playhouse.cluster.v1.Admin/Status', {}, { signal }), call('playhouse.cluster.v1.Admin/ShowConfig', {}, { signal }), call('playhouse.schema.v1.Schemas/Describe', {}, { signal }), call('playhouse.cluster.v1.Admin/ShowCertificates', {}, { signal })]);
    members.update(status.nodes);
    put(shown, certificates(nodes));
    put(config, h('p', { class: 'small quiet' }, `Node ${told.node}, every value in force; set in its config file, read when it starts.`), h('pre', {}, told.toml));
    put(schemas, h('details', {}, h('summary', {}, 'Kinds and the versions of what is stored of them'), h('pre', {}, JSON.stringify(schema, null, 2))));
  } catch (fault) { if (!signal.aborted) put(config, failure(fault)); }
}
