// Drawings: lines over time, the heat map, the page map, stacked bars. They draw on canvases sized for the screen's pixels
// and read their colours from the style sheet, so that themes need nothing here.
import {h, text} from './dom.js';

const colours = new Map();
export function forgetColours() { colours.clear(); }
export function colour(name) {
  if (!colours.has(name)) colours.set(name, getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim());
  return colours.get(name);
}

// The canvas's context in CSS pixels, resized where the element was; null while it is not shown.
function surface(canvas) {
  const width = canvas.clientWidth, height = canvas.clientHeight, ratio = window.devicePixelRatio || 1;
  if (!width || !height) return null;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext('2d');
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return {context, width, height};
}

// A line over the last minutes with its newest value and its maximum.
export function lineChart(title, series, format, tone = 'one') {
  const canvas = h('canvas', {class: 'spark', role: 'img', 'aria-label': title});
  const value = h('b', null, '–'), most = h('span');
  const element = h('div', {class: 'chart'}, h('div', {class: 'head'}, h('span', null, title), value), canvas,
    h('div', {class: 'axis'}, most));
  return {element, draw(values) {
    const points = values.map(series);
    const max = Math.max(...points, 1e-9);
    text(value, points.length ? format(points[points.length - 1]) : '–');
    text(most, 'max ' + (points.length ? format(max) : '–'));
    const to = surface(canvas);
    if (!to) return;
    const {context, width, height} = to;
    const x = (i) => width - (points.length - 1 - i) * (width / 179);
    const y = (v) => height - 2 - (height - 6) * (v / max);
    context.strokeStyle = colour('line');
    context.beginPath();
    context.moveTo(0, height - 1.5);
    context.lineTo(width, height - 1.5);
    context.stroke();
    if (points.length < 2) return;
    context.beginPath();
    points.forEach((v, i) => (i ? context.lineTo(x(i), y(v)) : context.moveTo(x(i), y(v))));
    context.strokeStyle = colour(tone);
    context.lineWidth = 1.75;
    context.lineJoin = 'round';
    context.stroke();
    context.lineTo(x(points.length - 1), height - 2);
    context.lineTo(x(0), height - 2);
    context.globalAlpha = 0.13;
    context.fillStyle = colour(tone);
    context.fill();
    context.globalAlpha = 1;
  }};
}

// Columns of bucket counts, the newest at the right; darker is more. Buckets that nobody used are left out.
export function heatMap(label, describe) {
  const canvas = h('canvas', {class: 'heat', role: 'img', 'aria-label': label});
  const tip = h('div', {class: 'note'});
  let shape = null;
  canvas.addEventListener('pointermove', (event) => {
    if (!shape) return;
    const column = shape.columns.length - 1 - Math.floor((shape.width - event.offsetX) / shape.cell);
    const bucket = shape.low + Math.floor((shape.height - event.offsetY) / shape.step);
    const counts = shape.columns[column];
    text(tip, counts && counts[bucket] !== undefined ? describe(bucket, counts[bucket], shape.columns.length - 1 - column) : '');
  });
  canvas.addEventListener('pointerleave', () => text(tip, ''));
  return {canvas, tip, draw(columns, label_of) {
    const to = surface(canvas);
    if (!to) return;
    const {context, width, height} = to;
    let low = 31, high = 0, most = 1;
    for (const counts of columns) {
      counts.forEach((n, i) => { if (n) { low = Math.min(low, i); high = Math.max(high, i); most = Math.max(most, n); } });
    }
    if (low > high) { low = 4; high = 18; }
    low = Math.max(0, low - 1);
    high = Math.min(31, Math.max(high + 1, low + 6));
    const left = 52, cell = (width - left) / 180, step = height / (high - low + 1);
    shape = {columns, low, step, cell, width, height};
    context.fillStyle = colour('raised');
    context.fillRect(left, 0, width - left, height);
    const scale = Math.log1p(most), tint = colour('heat');
    columns.forEach((counts, i) => {
      const x = width - (columns.length - i) * cell;
      for (let bucket = low; bucket <= high; ++bucket) {
        if (!counts[bucket]) continue;
        context.fillStyle = `rgba(${tint}, ${0.18 + 0.82 * Math.log1p(counts[bucket]) / scale})`;
        context.fillRect(x, height - (bucket - low + 1) * step + 0.5, Math.max(1, cell - 0.5), step - 1);
      }
    });
    context.fillStyle = colour('muted');
    context.font = '11px system-ui, sans-serif';
    context.textBaseline = 'middle';
    const every = Math.max(1, Math.round((high - low + 1) / 7));
    for (let bucket = low; bucket <= high; bucket += every) {
      context.fillText(label_of(bucket), 0, height - (bucket - low + 0.5) * step);
    }
  }};
}

// One cell a page or group of pages, by its use: 0 free, 1 cached, 2 used, 3 shared.
export function pageMap(label) {
  const canvas = h('canvas', {class: 'map', role: 'img', 'aria-label': label});
  const tones = ['line', 'five', 'one', 'four'];
  let drawn = '';
  return {canvas, draw(map) {
    const key = map + canvas.clientWidth + document.documentElement.dataset.theme;
    if (key === drawn) return;
    drawn = key;
    const to = surface(canvas);
    if (!to || !map.length) return;
    const {context, width, height} = to;
    const lines = Math.max(1, Math.round(Math.sqrt(map.length * height / width)));
    const across = Math.ceil(map.length / lines), cell_x = width / across, cell_y = height / lines;
    for (let i = 0; i < map.length; ++i) {
      context.fillStyle = colour(tones[map.charCodeAt(i) - 48]);
      context.fillRect((i % across) * cell_x, Math.floor(i / across) * cell_y, Math.max(1, cell_x - 1), Math.max(1, cell_y - 1));
    }
  }};
}

// Parts of a whole: parts are [{name, tone}]; set() takes their sizes and how to write each.
export function stackedBar(label, parts) {
  const pieces = parts.map((part) => h('i', {class: part.tone}));
  const numbers = parts.map(() => h('b'));
  const element = h('div', null, h('div', {class: 'stack', role: 'img', 'aria-label': label}, pieces),
    h('ul', {class: 'legend'}, parts.map((part, i) => h('li', null, h('i', {class: part.tone}), part.name, ' ', numbers[i]))));
  return {element, set(sizes, write) {
    const whole = sizes.reduce((sum, size) => sum + size, 0) || 1;
    sizes.forEach((size, i) => {
      const width = (100 * size / whole).toFixed(2) + '%';
      if (pieces[i].style.width !== width) pieces[i].style.width = width;
      text(numbers[i], write(size, whole));
    });
  }};
}

export function bar(label) {
  const fill = h('i');
  const element = h('div', {class: 'bar', role: 'meter', 'aria-label': label, 'aria-valuemin': 0, 'aria-valuemax': 100, 'aria-valuenow': 0}, fill);
  let before = -1;
  return {element, set(share, hot = false) {
    const percent = Math.round(100 * Math.min(1, Math.max(0, share || 0)));
    if (percent === before) return;
    before = percent;
    fill.style.width = percent + '%';
    element.setAttribute('aria-valuenow', percent);
    element.classList.toggle('hot', hot);
  }};
}
