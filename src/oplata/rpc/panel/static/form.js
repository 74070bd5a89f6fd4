// Forms made from the shapes of types. Every builder returns {element, read}; read throws a Fault that names the field.
export class Fault extends Error {}

let counter = 0;
const make = (name, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
};

export function build(shape, records, name) {
  switch (shape.kind) {
    case 'string': case 'date': return text(shape, name);
    case 'number': return number(shape, name);
    case 'boolean': return boolean(name);
    case 'null': case 'void': return { element: make('span', { className: 'hint', textContent: 'null' }), read: () => null };
    case 'constants': return constants(shape, name);
    case 'list': return list(shape, records, name);
    case 'tuple': return tuple(shape, records, name);
    case 'choice': return choice(shape, records, name);
    case 'record': return record(records[shape.index], records, name);
    case 'form': return formData(name);
    case 'octets': return octets(name);
    default: return json(name, '');
  }
}

export function json(name, value) {
  const area = make('textarea', { value, rows: 5, spellcheck: false, placeholder: 'JSON' });
  area.setAttribute('aria-label', `${name} as JSON`);
  return {
    element: area,
    read() {
      if (!area.value.trim()) return undefined;
      try { return JSON.parse(area.value); } catch (error) { throw new Fault(`${name}: ${error.message}`); }
    },
  };
}

const HINTS = { date: '2026-01-31T12:00:00Z', decimal: '10.50', uuid: '00000000-0000-…', base64: 'base64' };

function text(shape, name) {
  const placeholder = HINTS[shape.kind] ?? HINTS[shape.hint] ?? '';
  const input = make('input', { type: 'text', placeholder, autocomplete: 'off', spellcheck: false });
  input.setAttribute('aria-label', name);
  return { element: input, read: () => input.value };
}

function number(shape, name) {
  const input = make('input', { type: 'text', inputMode: 'decimal', autocomplete: 'off', placeholder: shape.hint === 'integer' ? '0' : '0.0' });
  input.setAttribute('aria-label', name);
  return {
    element: input,
    read() {
      const value = Number(input.value);
      if (!input.value.trim() || Number.isNaN(value)) throw new Fault(`${name} has to be a number.`);
      return value;
    },
  };
}

function boolean(name) {
  const input = make('input', { type: 'checkbox' });
  input.setAttribute('aria-label', name);
  return { element: input, read: () => input.checked };
}

function constants(shape, name) {
  const select = make('select', {}, ...shape.values.map((value, index) => make('option', { value: index, textContent: String(value) })));
  select.setAttribute('aria-label', name);
  return { element: select, read: () => shape.values[Number(select.value)] };
}

function list(shape, records, name) {
  const members = [];
  const rows = make('div', { className: 'fields' });
  const add = make('button', { type: 'button', className: 'quiet', textContent: `Add to ${name}` });
  add.addEventListener('click', () => {
    const member = build(shape.item, records, `${name} ${members.length + 1}`);
    const remove = make('button', { type: 'button', className: 'quiet', textContent: 'Remove' });
    remove.setAttribute('aria-label', `Remove from ${name}`);
    const row = make('div', { className: 'row' }, make('div', {}, member.element), remove);
    remove.addEventListener('click', () => { members.splice(members.indexOf(member), 1); row.remove(); add.focus(); });
    members.push(member);
    rows.append(row);
    row.querySelector('input, select, textarea, button')?.focus();
  });
  return { element: make('fieldset', {}, rows, make('div', {}, add)), read: () => members.map((member) => member.read()) };
}

function tuple(shape, records, name) {
  const members = shape.items.map((item, index) => build(item, records, `${name} ${index + 1}`));
  return { element: make('fieldset', {}, ...members.map((member) => member.element)), read: () => members.map((member) => member.read()) };
}

function titleOf(shape, records) {
  if (shape.kind === 'record') return records[shape.index].tag?.[1] ?? records[shape.index].name;
  return shape.kind === 'constants' ? shape.values.join(' | ') : shape.hint || shape.kind;
}

function choice(shape, records, name) {
  const distinct = shape.options.filter((option, index) =>
    shape.options.findIndex((other) => JSON.stringify([other.kind, other.index, other.values]) === JSON.stringify([option.kind, option.index, option.values])) === index);
  if (distinct.length === 1) return build(distinct[0], records, name);
  const select = make('select', {}, ...distinct.map((option, index) => make('option', { value: index, textContent: titleOf(option, records) })));
  select.setAttribute('aria-label', `Kind of ${name}`);
  const place = make('div');
  let current;
  const choose = () => {
    current = build(distinct[Number(select.value)], records, name);
    place.replaceChildren(current.element);
  };
  select.addEventListener('change', choose);
  choose();
  return { element: make('fieldset', {}, select, place), read: () => current.read() };
}

function record(description, records, name) {
  const box = make('fieldset');
  if (name) box.setAttribute('aria-label', name);
  const members = description.fields.map((field) => {
    const member = { key: field.key, read: () => undefined };
    const id = `field-${++counter}`;
    const label = make('label', { htmlFor: id }, field.key);
    const cell = make('div', { className: 'field' }, label);
    if (field.doc) label.append(make('span', { className: 'hint', textContent: field.doc }));
    const open = () => {
      const built = build(field.shape, records, field.key);
      if (built.element.matches('input, select, textarea')) built.element.id = id;
      cell.append(built.element);
      member.read = built.read;
      return built.element;
    };
    if (field.required) open();
    else optional(label, cell, id, field.key, member, open);
    box.append(cell);
    return member;
  });
  return {
    element: box,
    read() {
      const value = description.tag ? { [description.tag[0]]: description.tag[1] } : {};
      for (const { key, read } of members) {
        const given = read();
        if (given !== undefined) value[key] = given;
      }
      return value;
    },
  };
}

// An optional field is built when it is wanted: a type may contain itself.
function optional(label, cell, id, key, member, open) {
  const wanted = make('input', { type: 'checkbox' });
  wanted.setAttribute('aria-label', `Give ${key}`);
  label.htmlFor = '';
  label.prepend(wanted);
  label.append(make('span', { className: 'hint', textContent: 'optional' }));
  wanted.addEventListener('change', () => {
    if (wanted.checked) open();
    else { cell.lastElementChild.remove(); member.read = () => undefined; }
  });
}

function formData(name) {
  const file = make('input', { type: 'file', multiple: true });
  const area = make('textarea', { rows: 3, placeholder: 'name=value, one a line', spellcheck: false });
  area.setAttribute('aria-label', `${name} texts`);
  file.setAttribute('aria-label', `${name} files`);
  return {
    element: make('fieldset', {}, area, file),
    read() {
      const form = new FormData();
      for (const line of area.value.split('\n').filter(Boolean)) {
        const [key, ...rest] = line.split('=');
        form.append(key.trim(), rest.join('='));
      }
      for (const each of file.files) form.append('file', each);
      return form;
    },
  };
}

function octets(name) {
  const file = make('input', { type: 'file' });
  file.setAttribute('aria-label', name);
  return {
    element: file,
    read() {
      if (!file.files[0]) throw new Fault(`${name}: choose a file.`);
      return file.files[0];
    },
  };
}
