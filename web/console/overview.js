// Overview: why it is slow, the numbers of the last ten seconds, the last minutes.
import {attribute, card, h, show, text, tile} from './dom.js';
import {heatMap, lineChart, stackedBar} from './charts.js';
import {count, duration, percent, bytes} from './format.js';
import {t} from './words.js';

function verdictPanel() {
  const pill = h('span', {class: 'pill'}), say = h('p', {class: 'say'}), detail = h('p', {class: 'muted'});
  const parts = ['queue', 'prefill', 'decode', 'upstream', 'other'];
  const shares = stackedBar(t('time_of'), parts.map((name, i) => ({name: t(name), tone: 'c' + (i + 1)})));
  const none = h('p', {class: 'muted'}, t('no_requests')), facts = h('ul', {class: 'facts'});
  const element = h('section', {class: 'card verdict', 'aria-live': 'off'}, h('h2', null, t('why'), pill), say, detail,
    h('h3', null, t('time_of')), none, shares.element, facts);
  let said = '';
  return {element, update(v) {
    element.className = 'card verdict ' + v.severity;
    attribute(pill, 'class', 'pill ' + v.severity);
    text(pill, t(v.severity));
    text(say, t('v_' + v.resource));
    text(detail, t('d_' + v.resource));
    show(none, v.shares.requests === 0);
    show(shares.element, v.shares.requests > 0);
    shares.set(parts.map((part) => v.shares[part]), percent);
    const items = [];
    const add = (name, value) => items.push([t(name), value]);
    if (v.step_s > 0) add('step', duration(v.step_s));
    const floor = Math.max(v.memory_floor_s, v.compute_floor_s);
    if (floor > 0) add('floor', duration(floor));
    if (v.efficiency > 0) add('of_floor', percent(v.efficiency));
    if (v.bandwidth > 0) add('bandwidth', bytes(v.bandwidth) + '/s');
    if (v.slots_used > 0) add('slots', percent(v.slots_used));
    if (v.pages_used > 0) add('pages_used', percent(v.pages_used));
    if (v.waiting > 0) add('wait', duration(v.predicted_wait_s));
    if (v.cpu_of_others > 0.05) add('others', percent(v.cpu_of_others));
    if (v.error_share > 0) add('errors', percent(v.error_share));
    const wanted = JSON.stringify(items);
    if (wanted === said) return;
    said = wanted;
    facts.replaceChildren(...items.map(([name, value]) => h('li', null, name + ' ', h('b', null, value))));
  }};
}

export function view() {
  const verdict = verdictPanel();
  const tiles = {};
  for (const name of ['requests_per_s', 'latency', 'first_token', 'generated', 'prompt_tokens', 'running', 'waiting', 'cache_hits']) {
    tiles[name] = tile(t(name));
  }
  let bounds = [];
  const bucket = (i) => duration(bounds[i] || 0);
  const heat = heatMap(t('heat_label'), (i, n, ago) => `${i ? bucket(i - 1) : '0'} – ${bucket(i)}: ${n} ${t('requests_count')}, −${ago} s`);
  const lines = [
    lineChart(t('requests_per_s'), (s) => s.requests_per_s, count, 'one'),
    lineChart(t('generated'), (s) => s.generated_per_s, count, 'three'),
    lineChart(t('waiting_series'), (s) => s.waiting, count, 'two'),
    lineChart(t('pages_used'), (s) => s.pages_used, percent, 'four'),
  ];
  const element = h('div', {class: 'view'}, verdict.element, h('div', {class: 'tiles'}, Object.values(tiles).map((one) => one.element)),
    card(t('heat'), heat.canvas, h('div', {class: 'axis'}, h('span', null, t('minutes_ago')), heat.tip, h('span', null, t('now')))),
    card(t('last_minutes'), h('div', {class: 'pair'}, lines.map((line) => line.element))));
  let drawn = -1;
  return {element, update({frame, history}) {
    const {requests, tokens} = frame;
    verdict.update(frame.verdict);
    tiles.requests_per_s.set(count(requests.per_s), `${requests.in_flight} ${t('in_flight').toLowerCase()}`);
    tiles.latency.set(duration(requests.p50_s), `p95 ${duration(requests.p95_s)} · p99 ${duration(requests.p99_s)}`);
    tiles.first_token.set(duration(requests.first_p50_s), `p99 ${duration(requests.first_p99_s)}`);
    tiles.generated.set(count(tokens.generated_per_s), '');
    tiles.prompt_tokens.set(count(tokens.prompt_per_s), '');
    tiles.running.set(count(frame.models.reduce((sum, model) => sum + model.running, 0)), `${frame.upstreams.reduce((n, u) => n + u.in_flight, 0)} ${t('upstream')}`);
    tiles.waiting.set(count(frame.models.reduce((sum, model) => sum + model.waiting, 0)), `${count(requests.refusals_per_s)} ${t('refusals')}`);
    tiles.cache_hits.set(percent(tokens.cache_hits), t('of_prompt'));
    if (!history) return;
    bounds = history.bounds;
    const key = history.number + ':' + heat.canvas.clientWidth + document.documentElement.dataset.theme;
    if (key === drawn) return;  // the charts change once a second
    drawn = key;
    heat.draw(history.columns, bucket);
    for (const line of lines) line.draw(history.seconds);
  }};
}
