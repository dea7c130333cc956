// Business outcomes by arm: the estimate of each with its 95% interval on one scale, so that an edge model can be judged
// against the centre; below, every reading of the layer.
import {attribute, card, h, show, table, text} from './dom.js';
import {measure} from './format.js';
import {readingTable} from './readings.js';
import {t} from './words.js';

const MEASURES = ['conversion_ratio', 'value_per_request', 'ndcg_ratio', 'mrr_ratio', 'accuracy_ratio', 'thumbs_up_ratio',
  'cost_per_conversion_dollars'];
const WINDOWS = ['1h', '24h'];

function figure(value, unit) { return unit === 'ratio' ? (100 * value).toFixed(1) + ' %' : measure(value, unit); }

// {measure: [{arm, model, route, unit, estimate, low, high}]} of one window, arms in alphabetical order.
export function byArm(readings, window) {
  const groups = new Map();
  for (const reading of readings) {
    const name = reading.name.replace('spillway_business_', ''), {bound, arm, model, version, route, tenant} = reading.labels;
    if (!MEASURES.includes(name) || reading.labels.window !== window) continue;
    const key = [name, arm, model, version, route, tenant].join('\n');
    if (!groups.has(key)) groups.set(key, {name, arm, model, route, unit: reading.unit});
    groups.get(key)[bound] = reading.value;
  }
  const found = Object.fromEntries(MEASURES.map((name) => [name, []]));
  for (const row of groups.values()) if (Number.isFinite(row.estimate)) found[row.name].push(row);
  for (const rows of Object.values(found)) rows.sort((a, b) => a.arm.localeCompare(b.arm) || a.model.localeCompare(b.model));
  return found;
}

// "apart" where an interval and that of the first arm do not meet.
function apart(row, first) { return row !== first && (row.low > first.high || row.high < first.low); }

function plot(cell, row) {
  let track = cell.firstChild;
  if (!track) {
    track = h('div', {class: 'track', 'aria-hidden': 'true'}, h('i'), h('b'));
    cell.append(track);
  }
  const at = (value) => Math.max(0, Math.min(100, 100 * (value - row.from) / (row.to - row.from || 1)));
  const [range, dot] = track.children;
  range.style.left = at(row.low) + '%';
  range.style.width = Math.max(0.5, at(row.high) - at(row.low)) + '%';
  dot.style.left = at(row.estimate) + '%';
  track.classList.toggle('apart', row.apart);
}

function measurePanel(name) {
  const title = t('measure_' + name);
  const list = table(title, [
    {title: t('arm'), head: true, fill(cell, row) { text(cell, row.arm); attribute(cell, 'title', [row.model, row.route].filter(Boolean).join(' · ')); }},
    {title: t('model'), class: 'mono', text: (row) => row.model},
    {title: t('estimate'), class: 'number', text: (row) => figure(row.estimate, row.unit)},
    {title: t('interval'), class: 'number', text: (row) => figure(row.low, row.unit) + ' – ' + figure(row.high, row.unit)},
    {title: '', class: 'plot', fill: plot},
    {title: t('against_first'), text: (row) => (row.first ? '–' : t(row.apart ? 'apart' : 'together'))},
  ]);
  const element = card(title, list.element);
  return {element, update(rows) {
    // Without prices or values there is nothing to tell apart.
    const told = rows.some((row) => row.unit === 'ratio' || row.high !== 0 || row.low !== 0);
    show(element, told);
    if (!told) return;
    const most = Math.max(...rows.map((row) => row.high)), from = Math.min(0, ...rows.map((row) => row.low));
    const to = rows[0].unit === 'ratio' && most > 0.5 ? 1 : most * 1.1;
    list.update(rows.map((row) => ({...row, from, to, first: row === rows[0], apart: apart(row, rows[0])})));
  }};
}

export function business() {
  let window = WINDOWS[0], last = null;
  const choice = h('select', {id: 'outcome-window', 'aria-label': t('window'), onchange(event) { window = event.target.value; draw(); }},
    WINDOWS.map((name) => h('option', {value: name}, t('window_' + name))));
  const panels = MEASURES.map((name) => [name, measurePanel(name)]);
  const list = readingTable(t('business')), none = h('p', {class: 'muted'}, t('no_business'));
  const arms = h('div', {class: 'arms'}, h('p', {class: 'muted'}, t('arms_help')), h('label', null, t('window'), ' ', choice), panels.map(([, panel]) => panel.element));
  const element = h('div', {class: 'view'}, arms, card(t('business'), none, list.element));
  let next = 0;
  function draw() {
    if (!last) return;
    const found = byArm(last, window);
    show(arms, last.length > 0);
    for (const [name, panel] of panels) panel.update(found[name]);
  }
  return {element, update({frame}) {
    if (performance.now() < next) return;
    next = performance.now() + 500;
    last = frame.business;
    draw();
    show(none, last.length === 0);
    show(list.element, last.length > 0);
    list.update(last);
  }};
}
