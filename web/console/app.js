// The page: header, views, shortcuts, keys. A view is built when it is chosen and updated while it is shown, at most once
// a frame of the screen and only when the server sent something new.
import {h, show, text, attribute} from './dom.js';
import {forgetColours} from './charts.js';
import {keys, listen, reconnect, run, state} from './feed.js';
import {duration} from './format.js';
import {language, setLanguage, t} from './words.js';
import * as overview from './overview.js';
import * as engine from './engine.js';
import * as requests from './requests.js';
import * as fleet from './fleet.js';
import * as outcomes from './outcomes.js';
import * as readings from './readings.js';
import * as playground from './playground.js';
import * as settings from './settings.js';

const views = [
  ['overview', overview.view], ['engine', engine.view], ['requests', requests.view], ['fleet', fleet.view],
  ['hardware', readings.hardware], ['business', outcomes.business], ['playground', playground.view], ['settings', settings.view],
];
const root = document.documentElement, main = document.getElementById('main');
let shown = null, shown_name = '', parts = {}, dirty = false;

function setTheme(name) {
  root.dataset.theme = name;
  localStorage.setItem('theme', name);
  forgetColours();
  dirty = true;
}

function mark() {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('class', 'mark');
  svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  path.setAttribute('d', 'M2 6h8a5 5 0 0 1 5 5v2a4 4 0 0 0 4 4h3M2 11h6a3 3 0 0 1 3 3v1a6 6 0 0 0 6 6h5');
  path.setAttribute('fill', 'none');
  path.setAttribute('stroke', 'currentColor');
  path.setAttribute('stroke-width', '2.4');
  path.setAttribute('stroke-linecap', 'round');
  svg.append(path);
  return svg;
}

function buildFrame() {
  const status = h('span', {class: 'pill', id: 'status'}, '–'), up = h('span', {class: 'muted wide'});
  const live = h('button', {class: 'quiet', id: 'pause', 'aria-pressed': 'false', onclick: togglePause}, '❚❚');
  parts = {status, up, live};
  document.getElementById('header').replaceChildren(h('h1', null, mark(), 'Spillway'), status, up, h('span', {class: 'grow'}), live,
    h('button', {class: 'quiet', id: 'language', onclick: toggleLanguage, 'aria-label': t('language_name')}, t('language')),
    h('button', {class: 'quiet', id: 'theme', onclick: toggleTheme, 'aria-label': t('theme'), title: t('theme')}, '◐'),
    h('button', {class: 'quiet', id: 'keys', onclick: () => askKeys(false)}, t('keys')),
    h('button', {class: 'quiet wide', id: 'help', onclick: showHelp, 'aria-label': t('help'), title: t('help')}, '?'));
  const nav = document.getElementById('nav');
  nav.setAttribute('aria-label', t('views'));
  nav.replaceChildren(h('ul', null, views.map(([name], i) =>
    h('li', null, h('a', {href: '#' + name, id: 'nav-' + name}, t(name), h('kbd', {'aria-hidden': 'true'}, i + 1))))));
  text(document.getElementById('skip'), t('skip'));
}

function choose() {
  const [name, argument] = location.hash.slice(1).split('/');
  const found = views.find(([known]) => known === name) || views[0];
  shown_name = found[0];
  shown = found[1](argument && decodeURIComponent(argument));
  main.replaceChildren(h('h2', {class: 'hidden'}, t(shown_name)), shown.element);
  for (const [known] of views) {
    const link = document.getElementById('nav-' + known);
    if (known === shown_name) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  document.title = t(shown_name) + ' · Spillway';
  dirty = true;
}

function updateHeader() {
  const {frame} = state;
  const tone = !state.connected ? 'bad' : frame && frame.status === 'ready' ? 'good' : 'busy';
  attribute(parts.status, 'class', 'pill ' + tone);
  text(parts.status, state.connected ? t(frame ? frame.status : 'loading') : t('offline'));
  text(parts.up, frame ? `${t('up')} ${duration(Math.floor(frame.uptime_s))}` : '');
  text(parts.live, state.paused ? '▶' : '❚❚');
  attribute(parts.live, 'aria-label', t(state.paused ? 'resume' : 'pause'));
  attribute(parts.live, 'title', t(state.paused ? 'paused' : 'live'));
  attribute(parts.live, 'aria-pressed', state.paused);
}

// Counted for whoever measures: frames that the page drew and the longest of them.
window.drawn = {frames: 0, longest_ms: 0, total_ms: 0};
function draw() {
  requestAnimationFrame(draw);
  if (!dirty || document.hidden) return;
  dirty = false;
  const begin = performance.now();
  updateHeader();
  if (state.frame && shown) shown.update(state);
  ++window.drawn.frames;
  const took = performance.now() - begin;
  window.drawn.total_ms += took;
  window.drawn.longest_ms = Math.max(window.drawn.longest_ms, took);
}

function dialog(title, ...children) {
  const element = h('dialog', {'aria-label': title, onclose: () => element.remove()}, h('h2', null, title), ...children);
  document.body.append(element);
  element.showModal();
  return element;
}

let asking = null;
function askKeys(needed) {
  if (asking) return;
  const admin = h('input', {type: 'password', id: 'admin-key', autocomplete: 'off', value: keys.admin});
  const api = h('input', {type: 'password', id: 'api-key', autocomplete: 'off', value: sessionStorage.getItem('api') || ''});
  asking = dialog(t('key_title'), h('form', {method: 'dialog', onsubmit() {
    keys.set(admin.value.trim(), api.value.trim());
    asking = null;
    reconnect();
  }}, h('p', {class: 'muted'}, needed ? t('key_needed') + ' ' + t('key_why') : t('key_why')), h('label', null, t('admin_key'), admin),
    h('label', null, t('api_key'), api), h('div', {class: 'ends'}, h('button', {class: 'main', id: 'save-keys'}, t('save')))));
  asking.addEventListener('close', () => { asking = null; });
}

function showHelp() {
  const lines = [['1 – 8', t('s_views')], ['/', t('s_find')], ['p', t('s_pause')], ['d', t('s_theme')], ['l', t('s_language')], ['?', t('s_help')]];
  dialog(t('help'), h('dl', {class: 'shortcuts'}, lines.flatMap(([key, what]) => [h('dt', null, h('kbd', null, key)), h('dd', null, what)])),
    h('form', {method: 'dialog', class: 'ends'}, h('button', {class: 'main'}, t('close'))));
}

function togglePause() {
  state.paused = !state.paused;
  dirty = true;
}
function toggleTheme() { setTheme(root.dataset.theme === 'dark' ? 'light' : 'dark'); }
function toggleLanguage() {
  setLanguage(language() === 'zh' ? 'en' : 'zh');
  buildFrame();
  choose();
}

document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return;
  if (event.target.closest('input, textarea, select')) return;
  const number = Number(event.key);
  if (number >= 1 && number <= views.length) location.hash = '#' + views[number - 1][0];
  else if (event.key === '/') {
    event.preventDefault();
    location.hash = '#requests';
    setTimeout(() => document.getElementById('find')?.focus(), 50);
  } else if (event.key === 'p') togglePause();
  else if (event.key === 'd') toggleTheme();
  else if (event.key === 'l') toggleLanguage();
  else if (event.key === '?') showHelp();
});
window.addEventListener('hashchange', choose);
window.addEventListener('resize', () => { dirty = true; });

setTheme(localStorage.getItem('theme') || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'));
buildFrame();
choose();
listen((what) => {
  dirty = true;
  if (what === 'key') askKeys(true);
  if (what === 'whole' && shown.whole) shown.whole();
});
draw();
run();
