// The frame: who we are, which page is shown, which node is asked.

import { keepToken, learn, onHome, redeem, session, call, token } from './api.js';
import { failure, h, put } from './ui.js';

const content = document.getElementById('content');
const menu = document.getElementById('menu');
const menuButton = document.querySelector('.menu-button');
const homeMark = document.getElementById('home');
const modules = new Map();
let pages = [], leaving = new AbortController(), who = { rights: 'reader' };

menuButton.addEventListener('click', () => openMenu(!menu.classList.contains('open')));
function openMenu(open) { menu.classList.toggle('open', open); menuButton.setAttribute('aria-expanded', String(open)); }

const THEME = 'playhouse.theme';
const setTheme = (theme) => { if (theme) document.documentElement.dataset.theme = theme; else delete document.documentElement.dataset.theme; };
setTheme(localStorage.getItem(THEME));
document.getElementById('theme').addEventListener('click', () => {
  const isDark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  localStorage.setItem(THEME, isDark ? 'light' : 'dark');
  setTheme(localStorage.getItem(THEME));
});

onHome((home, isLost) => {
  const name = home.replace(/^https?:\/\//, '');
  const said = isLost ? 'no node answers, trying again' : home === location.origin ? name : `${name} (this page's node does not answer)`;
  if (homeMark.textContent !== said) homeMark.textContent = said;
  homeMark.classList.toggle('lost', isLost || home !== location.origin);
});

/** What the address says: page, the parts behind it, and what follows the question mark. */
function place() {
  const [path, query = ''] = location.hash.replace(/^#\/?/, '').split('?');
  const [page, ...parts] = path.split('/').filter(Boolean).map(decodeURIComponent);
  return { page: page || pages[0]?.name, parts, query: new URLSearchParams(query) };
}

async function show() {
  leaving.abort(new Error('another page'));
  leaving = new AbortController();
  const { signal } = leaving;
  openMenu(false);
  const { page, parts, query } = place();
  const entry = pages.find((known) => known.name === page);
  for (const link of menu.children) {
    if (link.dataset.page === page) link.setAttribute('aria-current', 'page'); else link.removeAttribute('aria-current');
  }
  if (!entry) return put(content, h('h1', {}, 'No such page'), h('p', {}, h('a', { href: '#/overview' }, 'To the overview')));
  document.title = [parts.join('/'), entry.title, 'Playhouse'].filter(Boolean).join(' · ');
  try {
    if (!modules.has(page)) modules.set(page, import(`/console/pages/${page}/page.js`));
    const module = await modules.get(page);
    if (signal.aborted) return;
    const area = h('div');
    put(content, h('h1', {}, h('span', {}, entry.title)), area);
    content.focus({ preventScroll: true });
    scrollTo(0, 0);
    await module.show(area, { parts, query, signal, heading: content.querySelector('h1'), isOperator: who.rights === 'operator', name: who.name });
  } catch (fault) {
    modules.delete(page);
    if (!signal.aborted) content.append(failure(fault, show));
  }
}

function logIn(reason) {
  const input = h('input', { type: 'password', autocomplete: 'current-password', required: true, 'aria-label': 'Token', class: 'grow' });
  const enter = async (event) => { event.preventDefault(); keepToken(input.value.trim()); await begin(); };
  menu.replaceChildren();
  put(content, h('h1', {}, 'Who are you?'), reason && h('div', { class: 'note warn', role: 'alert' }, reason),
    h('section', { class: 'panel' },
      h('p', {}, 'On the machine of ', h('code', {}, 'playhouse up'), ', the command ', h('code', {}, 'playhouse console'), ' prints a link that opens this page, once. ',
        'Elsewhere, enter one of the tokens in the table ', h('code', {}, 'http'), ' of the node’s config file; over TLS, a client certificate that the table ', h('code', {}, 'http.tls'), ' names is enough.'),
      h('form', { class: 'row', onsubmit: enter }, input, h('button', { class: 'main' }, 'Enter'))));
  input.focus();
}

async function begin(reason) {
  const code = /^#code=([0-9a-f]+)$/.exec(location.hash)?.[1];
  try {
    if (code) {
      history.replaceState(null, '', '#/');
      // An open page that is let in already stays as it is.
      await redeem(code);
    }
    // Without a token, a client certificate may do.
    who = await session();
  } catch (fault) {
    if (fault.status !== 401 && fault.status !== 403) return put(content, h('h1', {}, 'Playhouse'), failure(fault, () => begin()));
    if (code) return logIn(fault.message);
    // What is no token any more stands in the way of a certificate.
    if (token()) { keepToken(null); return begin(fault.message); }
    return logIn(fault.status === 401 ? reason : fault.message);
  }
  try {
    pages = await (await fetch('/console/menu.json')).json();
    sessionStorage.setItem('playhouse.menu', JSON.stringify(pages));
  } catch { pages = JSON.parse(sessionStorage.getItem('playhouse.menu') || '[]'); }
  put(menu, pages.map((page) => h('a', { href: `#/${page.name}`, 'data-page': page.name }, page.title)));
  // Pages are small: all of them are here before a node that served them is gone.
  setTimeout(() => pages.forEach((page) => { if (!modules.has(page.name)) { const loading = import(`/console/pages/${page.name}/page.js`); loading.catch(() => modules.delete(page.name)); modules.set(page.name, loading); } }), 1_500);
  call('playhouse.cluster.v1.Admin/Status').then((status) => learn(status.nodes)).catch(() => {});
  await show();
}

addEventListener('hashchange', () => { if (/^#code=/.test(location.hash) || !pages.length) begin(); else show(); });
addEventListener('unhandledrejection', (event) => { if (event.reason?.message === 'another page') event.preventDefault(); });
begin();
