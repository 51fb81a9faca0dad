// The certificates that nodes show on their HTTP ports, and whom client certificates let in.

import { facts, h, pill } from '/console/shell/ui.js';

const DAY_MS = 86_400_000, WARN_DAYS = 14;

const day = (ms) => new Date(ms).toISOString().replace('T', ' ').replace(/:\d\d\.\d+Z$/, ' UTC');
const code = (text) => h('code', {}, text);
const list = (names, nobody) => names.length ? names.map((name, at) => [at > 0 && ', ', code(name)]) : nobody;

function left(days) {
  if (days < 0) return pill('has ended', 'bad');
  return pill(days === 1 ? '1 day left' : `${days} days left`, days < WARN_DAYS ? 'warn' : 'good');
}

const howTo = (whose) => h('p', { class: 'small quiet' }, 'Without TLS, tokens can be read on their way. Set ', code('certificate'), ' and ', code('key'), ' in the table ', code('http.tls'), ` of ${whose}.`);

function one(node) {
  const title = (...more) => h('h3', { class: 'row' }, `Node ${node.node}`, ...more);
  const { certificate } = node;
  if (!certificate) return h('div', {}, title(pill('no TLS', 'warn')), howTo('its config file, and restart it'));
  const until = Number(certificate.notAfterUnixMs), days = Math.floor((until - Date.now()) / DAY_MS);
  return h('div', {}, title(left(days)),
    days < WARN_DAYS && h('div', { class: `note ${days < 0 ? 'bad' : 'warn'}`, role: 'alert' }, days < 0 ? 'Browsers refuse this certificate. ' : 'This certificate ends soon. ',
      'Put a new one into ', code(node.certificateFile), ', and its key into ', code(node.keyFile), ': the node takes them without a restart.'),
    facts([['Subject', certificate.subject], ['Issuer', certificate.issuer], ['Names', certificate.names.join(', ') || 'none: browsers refuse it'],
      ['Valid', `from ${day(Number(certificate.notBeforeUnixMs))} to ${day(until)}`], ['Files', [code(node.certificateFile), ', ', code(node.keyFile)]],
      ...clients(node)]));
}

function clients(node) {
  if (!node.clientCaFile) return [['Client certificates', ['are not asked for; set ', code('client_ca'), ' in the table ', code('http.tls')]]];
  return [['Client certificates', ['signed by ', code(node.clientCaFile)]], ['Operators', list(node.operators, 'none')], ['Readers', list(node.readers, 'none')]];
}

/** All nodes, one below the other. */
export function certificates({ nodes, unavailableNodes }) {
  if (!unavailableNodes.length && !nodes.some((node) => node.certificate)) return [h('p', {}, 'No node has TLS on its HTTP port.'), howTo('each node’s config file, and restart it')];
  return [...nodes.map(one), ...unavailableNodes.map((node) => h('div', {}, h('h3', { class: 'row' }, `Node ${node}`, pill('does not answer', 'bad'))))];
}
