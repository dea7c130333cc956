// Configuration as resolved: every option, its value and where it came from. Secrets never leave the server.
import {card, h, table, text} from './dom.js';
import {state} from './feed.js';
import {t} from './words.js';

export function view() {
  const list = table(t('settings'), [
    {title: t('option'), head: true, class: 'mono', text: (o) => o.key},
    {title: t('value'), class: 'mono', text: (o) => o.value || '""'},
    {title: t('from'), text: (o) => o.origin},
    {title: '', class: 'wrap', fill(cell, o) { cell.classList.add('muted'); text(cell, o.help); }},
  ]);
  const input = h('input', {type: 'search', oninput: fill});
  function fill() {
    const wanted = input.value.trim().toLowerCase();
    list.update(state.configuration.filter((o) => !wanted || `${o.key} ${o.value} ${o.help} ${o.origin}`.toLowerCase().includes(wanted)));
  }
  const element = h('div', {class: 'view'}, card(t('settings'), h('div', {class: 'row'}, h('label', null, t('filter'), input)), list.element));
  fill();
  return {element, update() {}, whole: fill};
}
