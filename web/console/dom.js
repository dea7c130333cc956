// Elements in one call, and updates that touch the page only where something changed.

// h('div', {class: 'tile', onclick: f}, 'text', child, ...): properties that are functions become listeners.
export function h(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === 'function') element.addEventListener(name.slice(2), value);
    else if (name === 'class') element.className = value;
    else if (name === 'value' || name === 'checked' || name === 'selected') element[name] = value;
    else element.setAttribute(name, value === true ? '' : value);
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

export function text(element, value) {
  const wanted = String(value);
  if (element.textContent !== wanted) element.textContent = wanted;
}

export function attribute(element, name, value) {
  const wanted = String(value);
  if (element.getAttribute(name) !== wanted) element.setAttribute(name, wanted);
}

export function show(element, shown) {
  if (element.hidden === shown) element.hidden = !shown;
}

// Rows of a table body that are reused: make(row) gives a tr with cells, fill(tr, item) updates it.
export function rows(body, items, columns) {
  while (body.rows.length > items.length) body.deleteRow(-1);
  while (body.rows.length < items.length) {
    const row = body.insertRow();
    columns.forEach((column, index) => {
      const cell = index === 0 && column.head ? document.createElement('th') : document.createElement('td');
      if (index === 0 && column.head) cell.scope = 'row';
      if (column.class) cell.className = column.class;
      row.append(cell);
    });
  }
  items.forEach((item, i) => {
    columns.forEach((column, j) => {
      const cell = body.rows[i].cells[j];
      if (column.fill) column.fill(cell, item);
      else text(cell, column.text(item));
    });
  });
}

// A table with a caption for those who hear it, scrolling sideways where the page is narrow.
export function table(caption, columns) {
  const body = h('tbody');
  const head = h('tr', null, columns.map((column) => h('th', {scope: 'col', class: column.class}, column.title)));
  const element = h('div', {class: 'scroll', tabindex: '0', role: 'region', 'aria-label': caption},
    h('table', null, h('caption', {class: 'hidden'}, caption), h('thead', null, head), body));
  return {element, body, update: (items) => rows(body, items, columns)};
}

export function card(title, ...children) {
  return h('section', {class: 'card'}, title && h('h2', null, title), ...children);
}

// A number with its name and a line under it.
export function tile(name) {
  const value = h('div', {class: 'value'}, '–');
  const note = h('div', {class: 'note'});
  return {element: h('div', {class: 'tile'}, h('div', {class: 'name'}, name), value, note), value, note,
    set(v, n) { text(value, v); if (n !== undefined) text(note, n); }};
}
