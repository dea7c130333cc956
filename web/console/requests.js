// Requests: the recent ones, and the timeline of one from its id.
import {attribute, card, h, show, table, text} from './dom.js';
import {count, duration} from './format.js';
import {fetchJson} from './feed.js';
import {t} from './words.js';

// Bars of a lane as [from, to, tone]; ticks have no length.
function lanes(request) {
  const at = {}, out = [], ticks = [], chunks = [], hops = [];
  let chunk_from = null, attempt = null;
  for (const moment of request.moments) {
    if (at[moment.kind] === undefined) at[moment.kind] = moment.at_s;
    if (moment.kind === 'started') chunk_from = moment.at_s;
    if (moment.kind === 'prefill') {
      chunks.push([chunk_from ?? moment.at_s, moment.at_s, 'c2']);
      chunk_from = moment.at_s;
    }
    if (moment.kind === 'tokens') ticks.push(moment.at_s);
    if (moment.kind === 'attempt' || moment.kind === 'resumed') attempt = {name: moment.note, from: moment.at_s, tone: 'c4'};
    if (moment.kind === 'failed' && attempt) {
      hops.push([attempt.name, attempt.from, moment.at_s, 'c2']);
      attempt = null;
    }
  }
  const end = request.total_s;
  if (at.queued !== undefined) out.push([t('queue'), [[at.queued, at.started ?? end, 'c1']], []]);
  if (chunks.length) out.push([t('prefill'), chunks, []]);
  if (ticks.length) out.push([t('decode'), [[ticks[0], ticks[ticks.length - 1], 'c3']], ticks]);
  if (attempt) hops.push([attempt.name, attempt.from, end, 'c4']);
  for (const [name, from, to, tone] of hops) out.push([name, [[from, to, tone]], []]);
  out.unshift([t('total'), [[0, end, 'c5']], []]);
  return out;
}

function gantt(request) {
  const end = Math.max(request.total_s, 1e-6), place = (s) => (100 * Math.min(1, s / end)).toFixed(3) + '%';
  const cells = [];
  for (const [name, bars, ticks] of lanes(request)) {
    const lane = h('div', {class: 'lane', role: 'img', 'aria-label': `${name}: ${bars.map(([from, to]) => duration(from) + ' – ' + duration(to)).join(', ')}`});
    for (const [from, to, tone] of bars) {
      const one = h('i', {class: tone, title: `${name}: ${duration(to - from)}`});
      one.style.left = place(from);
      one.style.width = place(to - from);
      lane.append(one);
    }
    for (const moment of ticks) {
      const tick = h('i', {class: 'tick c0'});
      tick.style.left = place(moment);
      lane.append(tick);
    }
    cells.push(h('span', null, name), lane);
  }
  return h('div', {class: 'gantt'}, cells, h('span'), h('div', {class: 'axis'}, h('span', null, '0'), h('span', null, duration(end / 2)), h('span', null, duration(end))));
}

function detail(moment) {
  const parts = [];
  if (moment.kind === 'received') parts.push(`${moment.a || 0} B`);
  if (moment.kind === 'queued') parts.push(`${moment.a || 0} ${t('prompt').toLowerCase()}`);
  if (moment.kind === 'started') parts.push(`${moment.a || 0} ${t('cached').toLowerCase()}`);
  if (moment.kind === 'prefill') parts.push(`+${moment.b || 0} → ${moment.a || 0}`);
  if (moment.kind === 'tokens') parts.push(`+${moment.b || 0} → ${moment.a || 0}`);
  if (moment.kind === 'finished') parts.push(`${moment.a || 0} ${t('tokens').toLowerCase()}`);
  if (moment.kind === 'answered') parts.push(String(moment.a || 0));
  if (moment.note) parts.push(moment.note);
  return parts.join(' · ');
}

export function view(id) {
  const input = h('input', {id: 'find', class: 'mono', size: 34, value: id || '', autocomplete: 'off', spellcheck: 'false'});
  const found = h('div');
  const form = h('form', {class: 'row', onsubmit(event) {
    event.preventDefault();
    location.hash = '#requests/' + encodeURIComponent(input.value.trim());
    look(input.value.trim());
  }}, h('label', {class: 'grow'}, t('find_label'), input), h('button', {class: 'main'}, t('show')));

  async function look(wanted) {
    if (!wanted) return;
    try {
      const request = await fetchJson('/console/api/requests/' + encodeURIComponent(wanted));
      const moments = table(t('timeline'), [
        {title: t('at'), class: 'number', text: (m) => duration(m.at_s)},
        {title: t('moment'), text: (m) => t('m_' + m.kind)},
        {title: t('detail'), class: 'wrap', text: detail},
      ]);
      moments.update(request.moments);
      found.replaceChildren(h('h3', {class: 'mono'}, request.id),
        h('p', {class: 'muted'}, [request.route, request.model, request.ended ? `${request.status} ${request.outcome}` : t('pending'), duration(request.total_s)].filter(Boolean).join(' · ')),
        gantt(request), moments.element);
      if (!request.ended) setTimeout(() => location.hash.endsWith(encodeURIComponent(wanted)) && look(wanted), 500);
    } catch (error) {
      found.replaceChildren(h('p', null, error.status === 404 ? t('not_found') : String(error.message)));
    }
  }
  const list = table(t('recent'), [
    {title: t('request'), head: true, class: 'mono', fill(cell, r) {
      if (!cell.firstChild) cell.append(h('a', {href: '#'}));
      text(cell.firstChild, r.id.length > 18 ? r.id.slice(0, 16) + '…' : r.id);
      attribute(cell.firstChild, 'href', '#requests/' + encodeURIComponent(r.id));
    }},
    {title: t('route'), text: (r) => r.route},
    {title: t('status'), fill(cell, r) {
      if (!cell.firstChild) cell.append(h('span', {class: 'pill'}));
      attribute(cell.firstChild, 'class', 'pill ' + (!r.ended ? 'busy' : r.status < 400 ? 'good' : 'bad'));
      text(cell.firstChild, r.ended ? `${r.status} ${r.outcome}` : t('pending'));
    }},
    {title: t('total'), class: 'number', text: (r) => duration(r.total_s)},
    {title: t('first_token'), class: 'number', text: (r) => (r.first_s ? duration(r.first_s) : '')},
    {title: t('queue'), class: 'number', text: (r) => (r.queue_s ? duration(r.queue_s) : '')},
    {title: t('prompt'), class: 'number', text: (r) => (r.prompt ? count(r.prompt) : '')},
    {title: t('tokens'), class: 'number', text: (r) => (r.tokens ? count(r.tokens) : '')},
    {title: t('hops'), text: (r) => (r.attempts ? `${r.attempts} · ${r.upstream}` : '')},
    {title: t('age'), class: 'number', text: (r) => duration(r.age_s)},
  ]);
  const none = h('p', {class: 'muted'}, t('no_requests'));
  const element = h('div', {class: 'view'}, card(t('find'), form, found), card(t('recent'), none, list.element));
  look(id);
  let next = 0;
  return {element, update({frame}) {
    if (performance.now() < next) return;  // rows that leap ten times a second cannot be clicked
    next = performance.now() + 500;
    show(none, frame.recent.length === 0);
    list.update(frame.recent);
  }};
}
