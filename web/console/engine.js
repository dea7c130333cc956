// Engine: the batch, the streams and the queue, pages and prefix tree, of each model.
import {attribute, card, h, show, table, text, tile} from './dom.js';
import {bar, pageMap, stackedBar} from './charts.js';
import {count, duration, percent} from './format.js';
import {t} from './words.js';

const kRows = 40;

function streamTable() {
  return table(t('streams'), [
    {title: t('request'), head: true, class: 'mono', fill(cell, s) {
      if (!cell.firstChild) cell.append(h('a', {href: '#requests'}));
      const link = cell.firstChild, name = s.name || '#' + s.id;
      text(link, name.length > 18 ? name.slice(0, 16) + '…' : name);
      attribute(link, 'href', '#requests/' + encodeURIComponent(s.name));
    }},
    {title: t('phase'), fill(cell, s) {
      if (!cell.firstChild) cell.append(h('i', {class: 'key'}), ' ', h('span'));
      attribute(cell.children[0], 'class', 'key ' + {waiting: 'c1', prefill: 'c2', decode: 'c3'}[s.phase]);
      text(cell.children[1], s.phase === 'waiting' ? t('waits') : t(s.phase));
    }},
    {title: t('prompt'), class: 'number', text: (s) => count(s.prompt)},
    {title: t('cached'), class: 'number', text: (s) => count(s.cached)},
    {title: t('output'), class: 'number', text: (s) => `${count(s.generated)} / ${count(s.max)}`},
    {title: t('progress'), fill(cell, s) {
      if (!cell.bar) cell.append((cell.bar = bar(t('progress'))).element);
      cell.bar.set(s.phase === 'decode' ? s.generated / Math.max(1, s.max) : s.computed / Math.max(1, s.prompt));
    }},
    {title: t('pages'), class: 'number', text: (s) => s.pages},
    {title: t('age'), class: 'number', text: (s) => duration(s.age_s)},
    {title: t('predicted'), class: 'number', text: (s) => (s.phase === 'waiting' ? duration(s.wait_s) : '')},
  ]);
}

function modelPanel() {
  const title = h('h2'), tiles = {};
  for (const name of ['running', 'waiting', 'wait', 'step', 'generated']) tiles[name] = tile(t(name));
  const batch = stackedBar(t('batch'), [{name: t('decode_rows'), tone: 'c3'}, {name: t('prefill_tokens'), tone: 'c2'},
    {name: t('draft_rows'), tone: 'c4'}, {name: t('free_rows'), tone: 'c0'}]);
  const streams = streamTable(), none = h('p', {class: 'muted'}, t('no_streams'));
  const map = pageMap(t('kv_label'));
  const pages = stackedBar(t('kv'), [{name: t('used'), tone: 'c1'}, {name: t('shared'), tone: 'c4'}, {name: t('cached'), tone: 'c5'}, {name: t('free'), tone: 'c0'}]);
  const facts = h('p', {class: 'muted'});
  const tree = table(t('tree'), [
    {title: t('prefix'), head: true, text: (r) => '#' + r.number},
    {title: t('pages'), class: 'number', text: (r) => r.pages},
    {title: '', fill(cell, r) {
      if (!cell.bar) cell.append((cell.bar = bar(t('pages'))).element);
      cell.bar.set(r.pages / r.most);
    }},
    {title: t('depth'), class: 'number', text: (r) => r.depth},
    {title: t('cached'), class: 'number', text: (r) => percent(r.idle / r.pages)},
  ]);
  const element = h('div', {class: 'view'}, title, h('div', {class: 'tiles'}, Object.values(tiles).map((one) => one.element)),
    h('div', {class: 'pair'}, card(t('batch'), batch.element), card(t('kv'), map.canvas, pages.element)),
    card(t('streams'), none, streams.element), card(t('tree'), facts, tree.element));
  let next = 0;
  return {element, update(model) {
    text(title, model.name);
    tiles.running.set(count(model.running), model.engine ? `≤ ${model.engine.sequences_max}` : '');
    tiles.waiting.set(count(model.waiting), `${count(model.waiting_tokens)} ${t('tokens').toLowerCase()}`);
    tiles.wait.set(duration(model.predicted_wait_s), '');
    tiles.generated.set(count(model.tokens_per_s), '');
    const engine = model.engine;
    if (!engine) return;
    const {step} = engine;
    tiles.step.set(duration(step.seconds_mean), `${count(step.rows_mean)} ${t('rows')}`);
    batch.set([step.decode_rows - step.draft_rows > 0 ? step.decode_rows - step.draft_rows : step.decode_rows, step.prefill_tokens, step.draft_rows,
      Math.max(0, engine.batch_tokens_max - step.decode_rows - step.prefill_tokens)], (n) => count(n));
    if (performance.now() < next) return;  // what the eye cannot follow ten times a second
    next = performance.now() + 490;
    show(none, engine.streams.length === 0);
    show(streams.element, engine.streams.length > 0);
    streams.update(engine.streams.slice(0, kRows));
    map.draw(engine.pages.map);
    const {total, free, cached, shared} = engine.pages;
    pages.set([total - free - cached - shared, shared, cached, free], (n, all) => `${count(n)} (${percent(n / all)})`);
    const {prefixes} = engine, most = prefixes.largest.length ? prefixes.largest[0].pages : 1;
    text(facts, prefixes.pages ? t('tree_facts', prefixes) : t('tree_empty'));
    show(tree.element, prefixes.largest.length > 0);
    tree.update(prefixes.largest.map((root, i) => ({...root, number: i + 1, most})));
  }};
}

function oneShotTable() {
  const list = table(t('one_shot'), [
    {title: t('model'), head: true, text: (m) => m.name},
    {title: t('status'), fill(cell, m) {
      if (!cell.firstChild) cell.append(h('span', {class: 'pill'}));
      attribute(cell.firstChild, 'class', 'pill ' + (m.stalled ? 'bad' : m.busy ? 'busy' : 'good'));
      text(cell.firstChild, t(m.stalled ? 'stalled' : m.busy ? 'busy' : 'ready'));
    }},
    {title: t('waiting'), class: 'number', text: (m) => count(m.waiting)},
    {title: t('wait'), class: 'number', text: (m) => duration(m.predicted_wait_s)},
    {title: t('inputs'), class: 'number', text: (m) => count(m.inputs)},
    {title: t('inputs_a_batch'), class: 'number', text: (m) => (m.batches ? count(m.inputs / m.batches) : '')},
    {title: t('queue'), class: 'number', text: (m) => duration(m.queue_s_mean)},
    {title: t('compute_time'), class: 'number', text: (m) => duration(m.compute_s_mean)},
  ]);
  return {element: card(t('one_shot'), list.element), update: list.update};
}

export function view() {
  const none = card(null, h('p', {class: 'muted'}, t('no_models')));
  const one_shot = oneShotTable();
  const element = h('div', {class: 'view'}, none, one_shot.element);
  const panels = [];
  return {element, update({frame}) {
    const single = frame.one_shot || [];
    show(none, frame.models.length + single.length === 0);
    show(one_shot.element, single.length > 0);
    one_shot.update(single);
    while (panels.length < frame.models.length) {
      panels.push(modelPanel());
      element.append(panels[panels.length - 1].element);
    }
    frame.models.forEach((model, i) => panels[i].update(model));
  }};
}
