// Upstreams: where requests may be sent, with the state of each breaker.
import {attribute, card, h, show, text} from './dom.js';
import {bar} from './charts.js';
import {count, duration, percent} from './format.js';
import {t} from './words.js';

const tone = {healthy: 'good', probing: 'busy', down: 'bad'};

function upstreamPanel() {
  const name = h('h3'), pill = h('span', {class: 'pill'}), load = bar(t('load')), list = h('dl');
  const element = h('article', {class: 'upstream'}, h('header', null, name, pill), load.element, list);
  const values = new Map();
  const put = (key, value) => {
    if (!values.has(key)) {
      const term = h('dt', null, t(key)), description = h('dd');
      list.append(term, description);
      values.set(key, {term, description});
    }
    const {term, description} = values.get(key);
    show(term, value !== '');
    show(description, value !== '');
    text(description, value);
  };
  return {element, update(u) {
    text(name, u.name);
    attribute(pill, 'class', 'pill ' + tone[u.health]);
    text(pill, t(u.health));
    load.set(u.in_flight / Math.max(1, u.concurrency_max), u.in_flight >= u.concurrency_max);
    put('load', `${u.in_flight} / ${u.concurrency_max}`);
    put('retry_in', u.health === 'down' ? duration(Math.max(0, u.opens_in_s)) : '');
    put('kind', `${u.kind} · ${u.tier}`);
    put('models', u.models.join(', ') || t('any_model'));
    put('share', u.share < 1 ? percent(u.share) : '');
    put('ttft', u.first_token_p50_s ? `${duration(u.first_token_p50_s)} / ${duration(u.first_token_p99_s)}` : '');
    put('decode_rate', u.decode_tokens_per_s ? count(u.decode_tokens_per_s) : '');
    put('price', u.price_input || u.price_output ? `$${u.price_input} / $${u.price_output}` : '');
    put('says', u.report ? `${u.report.running} ${t('running').toLowerCase()}, ${u.report.waiting} ${t('waits')}, ${duration(u.report.predicted_wait_s)}` : '');
  }};
}

export function view() {
  const none = card(null, h('p', {class: 'muted'}, t('no_upstreams'))), fleet = h('div', {class: 'fleet'});
  const element = h('div', {class: 'view'}, none, fleet), panels = [];
  return {element, update({frame}) {
    show(none, frame.upstreams.length === 0);
    while (panels.length < frame.upstreams.length) {
      panels.push(upstreamPanel());
      fleet.append(panels[panels.length - 1].element);
    }
    frame.upstreams.forEach((upstream, i) => panels[i].update(upstream));
  }};
}
