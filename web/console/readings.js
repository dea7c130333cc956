// Hardware: the metrics of its layer, as declared in the registry; the host's processors.
import {card, h, show, table, text} from './dom.js';
import {bar, stackedBar} from './charts.js';
import {measure, percent} from './format.js';
import {t} from './words.js';

function labels(reading) {
  return Object.entries(reading.labels).map(([name, value]) => `${name}=${value}`).join(', ');
}

function short(name) { return name.replace(/^spillway_/, '').replace(/_(ratio|seconds|bytes|celsius|watts|total)+$/g, '').replace(/_/g, ' '); }

export function readingTable(caption) {
  return table(caption, [
    {title: t('metric'), head: true, fill(cell, r) { text(cell, short(r.name)); cell.title = r.help; }},
    {title: t('labels'), class: 'mono', text: labels},
    {title: t('value'), class: 'number', text: (r) => measure(r.value, r.unit)},
  ]);
}

// Gauges of shares: those whose unit is a ratio.
function gaugePanel() {
  const title = h('h3'), value = h('b'), fill = bar('');
  return {element: h('div', {class: 'upstream'}, h('header', null, title, value), fill.element), update(reading) {
    const name = [short(reading.name), labels(reading)].filter(Boolean).join(' · ');
    text(title, name);
    text(value, percent(reading.value));
    fill.element.setAttribute('aria-label', name);
    fill.set(reading.value, reading.value > 0.95);
  }};
}

export function hardware() {
  const cpu = stackedBar(t('host'), [{name: t('cpu_own'), tone: 'c1'}, {name: t('cpu_other'), tone: 'c2'}, {name: t('cpu_free'), tone: 'c0'}]);
  const cores = h('p', {class: 'muted'}), gauges = h('div', {class: 'gauges'}), panels = [];
  const list = readingTable(t('hardware')), none = h('p', {class: 'muted'}, t('no_hardware'));
  const element = h('div', {class: 'view'}, card(t('host'), cpu.element, cores), gauges, card(t('hardware'), none, list.element));
  let next = 0;
  return {element, update({frame}) {
    if (performance.now() < next) return;
    next = performance.now() + 500;
    const {cpu_busy, cpu_own, processors} = frame.host;
    cpu.set([cpu_own, Math.max(0, cpu_busy - cpu_own), Math.max(0, 1 - cpu_busy)], percent);
    text(cores, `${processors} ${t('processors')}`);
    const shares = frame.hardware.filter((reading) => reading.unit === 'ratio').slice(0, 24);
    while (panels.length < shares.length) {
      panels.push(gaugePanel());
      gauges.append(panels[panels.length - 1].element);
    }
    shares.forEach((reading, i) => panels[i].update(reading));
    show(none, frame.hardware.length === 0);
    show(list.element, frame.hardware.length > 0);
    list.update(frame.hardware);
  }};
}
