// What pages are built from. Elements are made once and changed in place, so that nothing jumps and focus stays.

/** An element: h('a', { href, class, onclick }, 'text', child, …); children that are null or false are left out. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name === 'value' || name === 'checked' || name === 'disabled') element[name] = value;
    else element.setAttribute(name, value === true ? '' : value);
  }
  put(element, ...children);
  return element;
}
const flat = (children) => children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
/** Puts children into an element in place of what was there. */
export function put(element, ...children) { element.replaceChildren(...flat(children).map((child) => child instanceof Node ? child : String(child))); return element; }
/** The same, unless it would be the same text: for what is told again each second. */
export function say(element, text) { const said = String(text); if (element.textContent !== said) element.textContent = said; return element; }

export const panel = (title, ...children) => h('section', { class: 'panel' }, title && h('h2', {}, title), ...children);
export const pill = (text, tone = '') => h('span', { class: `pill ${tone}` }, text);
export const empty = (...children) => h('p', { class: 'empty' }, ...children);
export const facts = (pairs) => h('dl', { class: 'facts' }, flat(pairs.map((pair) => pair && [h('dt', {}, pair[0]), h('dd', {}, pair[1])])));

/** Why something is not there, and what to do. */
export function failure(fault, again) {
  const where = (fault.fields ?? []).map((field) => `${field.field} ${field.reason}`).filter((said) => !fault.message.includes(said)).join('; ');
  return h('div', { class: 'note bad', role: 'alert' }, h('b', {}, fault.code ? `${fault.code}: ` : ''), fault.message, where && ` (${where})`,
    again && h('div', {}, h('button', { onclick: again }, 'Try again')));
}

const two = (number) => String(number).padStart(2, '0');
/** Milliseconds since 1970 as the time of day, with the whole date on asking. */
export function time(ms) {
  const at = new Date(Number(ms));
  if (!Number(ms)) return h('span', { class: 'quiet' }, '–');
  const today = at.toDateString() === new Date().toDateString();
  const day = today ? '' : `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} `;
  return h('time', { datetime: at.toISOString(), title: at.toISOString(), class: 'mono' }, `${day}${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, '0')}`);
}
export function duration(ms) {
  const n = Number(ms);
  if (!Number.isFinite(n)) return '–';
  if (n < 1) return `${Math.round(n * 1000)} µs`;
  if (n < 10) return `${n.toFixed(1)} ms`;
  if (n < 1_000) return `${Math.round(n)} ms`;
  if (n < 60_000) return `${(n / 1_000).toFixed(1)} s`;
  if (n < 3_600_000) return `${Math.floor(n / 60_000)} min ${Math.floor(n % 60_000 / 1_000)} s`;
  if (n < 86_400_000) return `${Math.floor(n / 3_600_000)} h ${Math.floor(n % 3_600_000 / 60_000)} min`;
  return `${Math.floor(n / 86_400_000)} d ${Math.floor(n % 86_400_000 / 3_600_000)} h`;
}
export function count(number, digits = 0) {
  const n = Number(number);
  if (!Number.isFinite(n)) return '–';
  return n.toLocaleString('en', { maximumFractionDigits: n < 10 ? digits : 0 });
}
export function bytes(number) {
  let n = Number(number), unit = 0;
  while (n >= 1024 && unit < 4) { n /= 1024; unit++; }
  return `${n < 10 && unit ? n.toFixed(1) : Math.round(n)} ${['B', 'KiB', 'MiB', 'GiB', 'TiB'][unit]}`;
}

/** A link to an entity. */
export const entityLink = (key) => h('a', { href: `#/entities/${encodeKey(key)}`, class: 'mono' }, key);
export const sagaLink = (key) => h('a', { href: `#/sagas/${encodeKey(key)}`, class: 'mono' }, key);
export const traceLink = (id) => id ? h('a', { href: `#/traces/${id}`, class: 'mono', title: id }, id.slice(0, 8)) : h('span', { class: 'quiet' }, '–');
/** A saga's state, in the colour of what it means. */
export const sagaState = (state) => pill(state, { completed: 'good', undone: 'warn', stuck: 'bad', undoing: 'warn' }[state] ?? '');
export const encodeKey = (key) => key.split('/').map(encodeURIComponent).join('/');

/** A table that is changed in place: `update(rows)`. A column: { title, cell(row), number, small }. */
export class Table {
  constructor(columns, { key, empty: nothing = 'Nothing here.', label } = {}) {
    Object.assign(this, { columns, key, nothing });
    this.rows = new Map();
    this.body = h('tbody');
    const head = h('thead', {}, h('tr', {}, columns.map((column) => h('th', { class: classes(column), scope: 'col' }, column.title))));
    this.empty = empty(nothing);
    this.empty.hidden = true;
    this.table = h('table', { 'aria-label': label }, head, this.body);
    this.element = h('div', {}, h('div', { class: 'scroll' }, this.table), this.empty);
  }

  update(rows) {
    const seen = new Set();
    rows.forEach((row, place) => {
      const key = this.key ? this.key(row) : place;
      seen.add(key);
      let line = this.rows.get(key);
      if (!line) {
        line = { element: h('tr'), cells: this.columns.map((column) => h('td', { class: classes(column) })), told: [] };
        line.element.append(...line.cells);
        this.rows.set(key, line);
      }
      this.columns.forEach((column, at) => {
        const content = column.cell(row);
        const told = content instanceof Node ? content.outerHTML : String(content ?? '');
        if (line.told[at] === told) return;
        line.told[at] = told;
        put(line.cells[at], content ?? '');
      });
      if (this.body.children[place] !== line.element) this.body.insertBefore(line.element, this.body.children[place] ?? null);
    });
    for (const [key, line] of this.rows) {
      if (!seen.has(key)) { line.element.remove(); this.rows.delete(key); }
    }
    this.empty.hidden = rows.length > 0;
    this.table.hidden = rows.length === 0;
  }
}
const classes = (column) => [column.number && 'number', column.small === false && 'hide-small'].filter(Boolean).join(' ') || undefined;

/** JSON as a tree that opens and closes; `changed` holds paths to be marked. */
export function tree(value, { open = 2, changed = new Set() } = {}) {
  const show = (name, value, path, depth) => {
    const mark = changed.has(path) ? ' changed' : '';
    const key = name === '' ? '' : h('span', { class: 'key' }, `${name}: `);
    if (value !== null && typeof value === 'object') {
      const entries = Object.entries(value);
      const isList = Array.isArray(value);
      if (!entries.length) return h('div', { class: `leaf${mark}` }, key, isList ? '[]' : '{}');
      const inside = [...changed].some((other) => other.startsWith(path));
      return h('details', { open: depth < open || inside }, h('summary', { class: mark.trim() || undefined }, key, h('span', { class: 'quiet' }, isList ? `[${entries.length}]` : `{${entries.length}}`)),
        entries.map(([inner, content]) => show(inner, content, isList ? `${path}[${inner}]` : path ? `${path}.${inner}` : inner, depth + 1)));
    }
    return h('div', { class: `leaf${mark}` }, key, JSON.stringify(value));
  };
  return h('div', { class: 'tree' }, show('', value, '', 0));
}
export function parse(json) { try { return JSON.parse(json); } catch { return json; } }

/** Asks before something is done; resolves to whether to do it. */
export function confirm(question, detail, verb, tone = 'danger') {
  return new Promise((answer) => {
    const close = (yes) => { dialog.close(); dialog.remove(); answer(yes); };
    const dialog = h('dialog', { oncancel: () => close(false) }, h('h2', {}, question), h('p', {}, detail),
      h('div', { class: 'row' }, h('button', { class: tone, onclick: () => close(true) }, verb), h('button', { onclick: () => close(false), autofocus: true }, 'Leave it')));
    document.body.append(dialog);
    dialog.showModal();
  });
}
export function toast(text) {
  const said = h('div', { class: 'toast', role: 'status' }, text);
  document.body.append(said);
  setTimeout(() => said.remove(), 5_000);
}
/** A button that does something once at a time, and says how it went. */
export function action(label, act, { tone, ask, title, disabled } = {}) {
  const button = h('button', { class: tone, title, disabled, onclick: async () => {
    if (ask && !await confirm(ask[0], ask[1], label, tone)) return;
    button.disabled = true;
    try { const said = await act(); if (said) toast(said); } catch (fault) { toast(`${fault.code ?? 'Fault'}: ${fault.message}`); } finally { button.disabled = Boolean(disabled); }
  } }, label);
  return button;
}
/** Buttons of which one is pressed. */
export function choice(options, chosen, choose) {
  const buttons = options.map(([value, label]) => h('button', { 'aria-pressed': String(value === chosen), onclick: () => choose(value) }, label));
  return h('div', { class: 'tabs', role: 'group' }, buttons);
}
