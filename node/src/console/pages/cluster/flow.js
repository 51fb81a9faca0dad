// What goes between the nodes, live: a map with a line for each direction, and the same as a table.

import { Table, bytes, count, h, pill, say } from '/console/shell/ui.js';

const SVG = 'http://www.w3.org/2000/svg', WIDTH = 480, HEIGHT = 300, NODE_R = 24;
/** Nodes up to which each line has room for its figure. */
const LABELLED_MAX = 3;
/** Messages a second from which on a line moves faster and is thicker. */
const LEVELS = [0.1, 10, 100, 1_000, 10_000];
/** How far the two lines of a direction bulge, and where on its way each has its figure. */
const KINDS = [{ name: 'consensus', bulge: 26, at: .6 }, { name: 'forwarded', bulge: 58, at: .4 }];

const s = (tag, attributes = {}, ...children) => { const element = document.createElementNS(SVG, tag); for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value); element.append(...children); return element; };

export class Flow {
  constructor() {
    this.before = new Map();
    this.ids = '';
    this.svg = s('svg', { class: 'flow', viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', 'aria-label': 'Messages between the nodes; the table below says the same' });
    this.table = new Table([
      { title: 'From', cell: (link) => `node ${link.from}` },
      { title: 'To', cell: (link) => [`node ${link.to} `, !link.up && pill('cut', 'bad')] },
      { title: 'Consensus', number: true, cell: (link) => `${rate(link.consensus)}/s` },
      { title: 'Bytes', number: true, small: false, cell: (link) => `${bytes(link.bytes ?? 0)}/s` },
      { title: 'Forwarded', number: true, cell: (link) => `${rate(link.forwarded)}/s` },
      { title: 'Unanswered', number: true, cell: (link) => count(link.unanswered) },
    ], { key: (link) => `${link.from} ${link.to}`, label: 'Links between nodes', empty: 'One node has nobody to talk to.' });
    this.element = h('section', { class: 'panel' }, h('h2', {}, 'Messages between nodes'), h('div', { class: 'scroll' }, this.svg),
      h('p', { class: 'small quiet' }, h('span', { class: 'swatch consensus' }), ' consensus ', h('span', { class: 'swatch forwarded' }), ' commands, reads and effects on their way to a leader'),
      h('details', {}, h('summary', {}, 'As a table'), this.table.element));
  }

  update(nodes) {
    const ids = nodes.map((node) => node.id).join(' ');
    if (ids !== this.ids) this.draw(nodes.map((node) => node.id), ids);
    const now = performance.now();
    const links = nodes.flatMap((node) => node.links.map((link) => this.rated(node, link, now)));
    for (const node of nodes) {
      this.nodes.get(node.id).setAttribute('class', node.up ? 'at' : 'at down');
      for (const other of nodes) {
        if (other.id === node.id) continue;
        const link = links.find((link) => link.from === node.id && link.to === other.id);
        KINDS.forEach((kind) => this.line(node.id, other.id, kind.name, link, node.up && other.up));
      }
    }
    this.table.update(links);
  }

  /** A link with what went over it a second since it was last told of. */
  rated(node, link, now) {
    const key = `${node.id} ${link.to}`, before = this.before.get(key);
    const told = { at: now, consensus: Number(link.consensusMessages), bytes: Number(link.consensusBytes), forwarded: Number(link.forwarded) };
    this.before.set(key, told);
    const rated = { from: node.id, to: link.to, up: link.up, unanswered: link.unanswered };
    // A node that has started anew counts from 0.
    if (before && told.consensus >= before.consensus && told.forwarded >= before.forwarded) {
      for (const name of ['consensus', 'bytes', 'forwarded']) rated[name] = (told[name] - before[name]) / ((now - before.at) / 1_000);
    }
    return rated;
  }

  line(from, to, kind, link, isThere) {
    const { path, label, title } = this.lines.get(`${from} ${to} ${kind}`);
    const isUp = isThere && link?.up, each = link?.[kind] ?? 0;
    const level = LEVELS.filter((least) => each >= least).length;
    const shape = `${kind} ${isUp ? `level-${level}` : 'cut'}`;
    if (path.getAttribute('class') !== shape) path.setAttribute('class', shape);
    say(title, `node ${from} to node ${to}, ${kind}: ${isUp ? `${rate(each)} a second` : 'cut'}`);
    say(label, isUp && level && this.nodes.size <= LABELLED_MAX ? `${rate(each)}/s` : '');
  }

  draw(ids, told) {
    Object.assign(this, { ids: told, nodes: new Map(), lines: new Map() });
    const place = (at) => { const angle = 2 * Math.PI * at / ids.length - Math.PI / 2; return [WIDTH / 2 + Math.cos(angle) * (WIDTH / 2 - 34), HEIGHT / 2 + Math.sin(angle) * (HEIGHT / 2 - 44)]; };
    const lines = [], circles = [];
    ids.forEach((from, a) => {
      const [x, y] = place(a);
      const circle = s('g', { class: 'at' }, s('circle', { cx: x, cy: y, r: NODE_R }), s('text', { x, y: y + 5 }, String(from)));
      this.nodes.set(from, circle);
      circles.push(circle);
      ids.forEach((to, b) => {
        if (from === to) return;
        for (const kind of KINDS) {
          const { path, figure } = curve(place(a), place(b), kind);
          const title = s('title'), line = s('path', { d: path }), label = s('text', { x: figure[0], y: figure[1] + 4, class: 'rate' });
          lines.push(s('g', {}, line, label, title));
          this.lines.set(`${from} ${to} ${kind.name}`, { path: line, label, title });
        }
      });
    });
    this.svg.replaceChildren(...lines, ...circles);
  }
}

/** From the rim of one circle to that of another, bulging to the left of its way. */
function curve([x1, y1], [x2, y2], { bulge, at }) {
  const length = Math.hypot(x2 - x1, y2 - y1), [dx, dy] = [(x2 - x1) / length, (y2 - y1) / length];
  const control = [(x1 + x2) / 2 + dy * bulge, (y1 + y2) / 2 - dx * bulge];
  const rim = ([x, y], [tx, ty]) => { const far = Math.hypot(tx - x, ty - y); return [x + (tx - x) / far * (NODE_R + 4), y + (ty - y) / far * (NODE_R + 4)]; };
  const [from, to] = [rim([x1, y1], control), rim([x2, y2], control)];
  return { path: `M${from.join(' ')} Q${control.join(' ')} ${to.join(' ')}`, figure: [0, 1].map((axis) => (1 - at) ** 2 * from[axis] + 2 * at * (1 - at) * control[axis] + at ** 2 * to[axis]) };
}

const rate = (each) => each === undefined ? '–' : each < 1_000 ? count(each, 1) : `${(each / 1_000).toFixed(1)} K`;
