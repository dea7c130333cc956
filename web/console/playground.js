// Playground: a chat with its reasoning folded, embeddings with their similarities, a picture and its classes.
import {card, h, table, text} from './dom.js';
import {bar} from './charts.js';
import {count, duration, percent} from './format.js';
import {headers, keys, readEvents} from './feed.js';
import {t} from './words.js';

async function post(path, body, signal) {
  const form = body instanceof FormData;
  const response = await fetch(path, {method: 'POST', signal, body: form ? body : JSON.stringify(body),
    headers: {...(form ? {} : {'Content-Type': 'application/json'}), ...headers(keys.api)}});
  if (response.ok) return response;
  let message = response.status + ' ' + response.statusText;
  try {
    message = (await response.json()).error.message || message;
  } catch { /* the status says enough */ }
  throw new Error(message);
}

function modelChoice() {
  const select = h('select');
  fetch('/v1/models', {headers: headers(keys.api)}).then((response) => response.json()).then(({data}) => {
    select.replaceChildren(...(data || []).map((model) => h('option', {value: model.id}, model.id)));
  }).catch(() => {});
  return select;
}

function bubble(role) {
  const body = h('div');
  return {element: h('div', {class: 'said ' + role, role: 'group', 'aria-label': t(role === 'user' ? 'you' : 'answer')}, body), body};
}

// One answer as it comes: reasoning in a fold, text, then what it cost.
function answerBubble() {
  const {element, body} = bubble('assistant');
  const reasoning = h('div'), summary = h('summary', null, t('thinking')), fold = h('details', {class: 'reasoning'}, summary, reasoning);
  const content = h('div', {class: 'content'}), facts = h('div', {class: 'facts'});
  const begin = performance.now();
  let first = 0, thought = 0;
  body.append(content);
  return {element,
    reason(piece) {
      if (!first) first = performance.now();
      if (!fold.isConnected) body.prepend(fold);
      reasoning.append(piece);
    },
    say(piece) {
      if (!first) first = performance.now();
      if (fold.isConnected && !thought) {
        thought = performance.now();
        text(summary, `${t('thought')} (${duration((thought - first) / 1000)})`);
      }
      content.append(content.childNodes.length ? piece : piece.replace(/^\n+/, ''));
    },
    end(usage, id) {
      const end = performance.now();
      if (fold.isConnected && !thought) text(summary, t('thought'));
      const tokens = usage ? usage.completion_tokens : 0;
      const parts = [`${t('first_token')} ${duration((first - begin) / 1000)}`, duration((end - begin) / 1000)];
      if (tokens) parts.push(`${tokens} ${t('tokens').toLowerCase()}`, `${count(tokens / Math.max(1e-3, (end - first) / 1000))} ${t('speed')}`);
      facts.append(parts.join(' · '));
      if (id) facts.append(h('a', {href: '#requests/' + encodeURIComponent(id)}, t('see_timeline')));
      body.append(facts);
    },
    fail(message) {
      element.classList.add('error');
      content.append(`${t('failed')}: ${message}`);
    },
    text: () => content.textContent,
  };
}

function chat() {
  const model = modelChoice(), temperature = h('input', {type: 'number', min: 0, max: 2, step: 0.1, value: 0.6});
  const limit = h('input', {type: 'number', min: 1, max: 32768, value: 256}), system = h('input', {value: ''});
  const talk = h('div', {class: 'talk', role: 'log', 'aria-label': t('chat')}), input = h('textarea', {id: 'message', rows: 3, placeholder: t('message')});
  const send = h('button', {class: 'main', id: 'send'}, t('send'));
  let turns = [], running = null;
  async function ask(said) {
    if (!said || running) return;
    if (!turns.length && system.value.trim()) turns.push({role: 'system', content: system.value.trim()});
    turns.push({role: 'user', content: said});
    const mine = bubble('user'), answer = answerBubble();
    mine.body.append(said);
    talk.append(mine.element, answer.element);
    running = new AbortController();
    text(send, t('stop'));
    let usage = null;
    try {
      const response = await post('/v1/chat/completions', {model: model.value, messages: turns, stream: true, stream_options: {include_usage: true},
        temperature: Number(temperature.value), max_tokens: Number(limit.value)}, running.signal);
      await readEvents(response, (data) => {
        if (data === '[DONE]') return;
        const chunk = JSON.parse(data);
        if (chunk.error) throw new Error(chunk.error.message);
        usage = chunk.usage || usage;
        const delta = chunk.choices && chunk.choices[0] ? chunk.choices[0].delta : {};
        if (delta.reasoning_content) answer.reason(delta.reasoning_content);
        if (delta.content) answer.say(delta.content);
      });
      turns.push({role: 'assistant', content: answer.text()});
      answer.end(usage, response.headers.get('X-Request-Id'));
    } catch (error) {
      if (error.name !== 'AbortError') answer.fail(error.message);
      turns.pop();
    }
    running = null;
    text(send, t('send'));
  }
  input.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  const form = h('form', {onsubmit(event) {
    event.preventDefault();
    if (running) return running.abort();
    const said = input.value.trim();
    input.value = '';
    ask(said);
  }}, h('label', {class: 'hidden', for: 'message'}, t('message')), input,
    h('div', {class: 'row'}, send, h('button', {type: 'button', onclick() { turns = []; talk.replaceChildren(); }}, t('clear'))));
  return h('div', null, h('div', {class: 'row'}, h('label', null, t('model'), model), h('label', null, t('temperature'), temperature),
    h('label', null, t('max_tokens'), limit), h('label', {class: 'grow'}, t('system'), system)), talk, form);
}

function cosine(a, b) {
  let product = 0, left = 0, right = 0;
  a.forEach((x, i) => { product += x * b[i]; left += x * x; right += b[i] * b[i]; });
  return product / Math.sqrt(left * right || 1);
}

function embeddings() {
  const model = modelChoice(), input = h('textarea', {id: 'texts', rows: 4}), out = h('div');
  input.value = 'The cat sat on the mat.\nA kitten rests on a rug.\nInterest rates rose again.';
  return h('div', null, h('form', {async onsubmit(event) {
    event.preventDefault();
    const lines = input.value.split('\n').map((line) => line.trim()).filter(Boolean).slice(0, 24);
    try {
      const begin = performance.now();
      const answer = await (await post('/v1/embeddings', {model: model.value, input: lines})).json();
      const vectors = answer.data.map((item) => item.embedding);
      const grid = table(t('similarity'), [{title: '', head: true, text: (row) => lines[row.i].slice(0, 40)},
        ...vectors.map((_, j) => ({title: '#' + (j + 1), class: 'number', text: (row) => cosine(vectors[row.i], vectors[j]).toFixed(3)}))]);
      grid.update(vectors.map((_, i) => ({i})));
      out.replaceChildren(h('p', {class: 'muted'}, `${vectors[0].length} ${t('dimensions')} · ${duration((performance.now() - begin) / 1000)}`), grid.element);
    } catch (error) {
      out.replaceChildren(h('div', {class: 'said error', role: 'alert'}, `${t('failed')}: ${error.message}`));
    }
  }}, h('div', {class: 'row'}, h('label', null, t('model'), model)), h('label', {for: 'texts', class: 'muted'}, t('texts')), input,
    h('div', {class: 'row'}, h('button', {class: 'main'}, t('embed')))), out);
}

function images() {
  const model = modelChoice(), file = h('input', {type: 'file', accept: 'image/png,image/jpeg', id: 'picture'}), out = h('div');
  const seen = h('img', {class: 'picture', alt: '', hidden: true});
  file.addEventListener('change', () => {
    if (seen.src) URL.revokeObjectURL(seen.src);
    if (!file.files[0]) return;
    seen.src = URL.createObjectURL(file.files[0]);
    seen.alt = file.files[0].name;
    seen.hidden = false;
  });
  return h('div', null, h('form', {async onsubmit(event) {
    event.preventDefault();
    if (!file.files[0]) return;
    const form = new FormData();
    form.append('model', model.value);
    form.append('top_k', '5');
    form.append('image', file.files[0]);
    try {
      const begin = performance.now();
      const answer = await (await post('/v1/classify', form)).json();
      const list = h('dl');
      for (const {label, score} of answer.data[0].scores) {
        const fill = bar(label);
        fill.set(score);
        list.append(h('dt', null, label), h('dd', null, percent(score), fill.element));
      }
      out.replaceChildren(h('p', {class: 'muted'}, duration((performance.now() - begin) / 1000)), list);
    } catch (error) {
      out.replaceChildren(h('div', {class: 'said error', role: 'alert'}, `${t('failed')}: ${error.message}`));
    }
  }}, h('div', {class: 'row'}, h('label', null, t('model'), model), h('label', null, t('picture'), file), h('button', {class: 'main'}, t('classify')))), seen, out);
}

export function view() {
  const panels = {chat, embeddings, images}, holder = h('div', {id: 'panel', role: 'tabpanel'}), built = {};
  const tabs = h('div', {class: 'tabs', role: 'tablist', 'aria-label': t('playground')}, Object.keys(panels).map((name) =>
    h('button', {role: 'tab', id: 'tab-' + name, 'aria-controls': 'panel', 'aria-selected': 'false', onclick: () => choose(name)}, t(name))));
  function choose(name) {
    built[name] ??= panels[name]();
    for (const tab of tabs.children) {
      tab.setAttribute('aria-selected', tab.id === 'tab-' + name);
      tab.tabIndex = tab.id === 'tab-' + name ? 0 : -1;
    }
    holder.setAttribute('aria-labelledby', 'tab-' + name);
    holder.replaceChildren(built[name]);
  }
  tabs.addEventListener('keydown', (event) => {
    const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (!step) return;
    const names = Object.keys(panels), now = names.findIndex((name) => document.activeElement.id === 'tab-' + name);
    const next = names[(now + step + names.length) % names.length];
    choose(next);
    document.getElementById('tab-' + next).focus();
  });
  choose('chat');
  return {element: h('div', {class: 'view'}, card(null, tabs, holder)), update() {}};
}
