import { Caller, MAX_EVENTS } from './calls.js';
import { Fault, build, json } from './form.js';

const $ = (selector, root = document) => root.querySelector(selector);
const description = await (await fetch('router.json')).json();
const caller = new Caller(description, headers);
let running;

$('#endpoint').textContent = description.endpoint;
$('#headers').value = sessionStorage.getItem('headers') ?? '';
$('#headers').addEventListener('input', () => sessionStorage.setItem('headers', $('#headers').value));

function headers() {
  const pairs = $('#headers').value.split('\n').map((line) => /^\s*([^:\s]+)\s*:\s*(.*?)\s*$/.exec(line)).filter(Boolean);
  return Object.fromEntries(pairs.map(([, name, value]) => [name, value]));
}

function fill() {
  const wanted = $('#search').value.trim().toLowerCase();
  const groups = new Map();
  for (const procedure of description.procedures) {
    if (!`${procedure.path} ${procedure.doc}`.toLowerCase().includes(wanted)) continue;
    const group = procedure.path.split('.').slice(0, -1).join('.');
    groups.set(group, [...(groups.get(group) ?? []), procedure]);
  }
  $('#list').replaceChildren(...[...groups].flatMap(([group, procedures]) => [
    ...(group ? [Object.assign(document.createElement('h3'), { textContent: group })] : []),
    ...procedures.map(entry),
  ]));
  if (!groups.size) $('#list').textContent = 'Nothing of that name.';
}

function entry(procedure) {
  const button = document.createElement('button');
  const mark = Object.assign(document.createElement('span'), { className: `mark ${procedure.kind}` });
  button.append(mark, procedure.path.split('.').at(-1));
  button.title = `${procedure.kind} ${procedure.path}`;
  button.setAttribute('aria-label', `${procedure.path}, ${procedure.kind}`);
  button.setAttribute('aria-current', String(location.hash.slice(1) === procedure.path));
  button.addEventListener('click', () => { location.hash = procedure.path; $('#procedure').focus(); });
  return button;
}

function show() {
  running?.abort();
  const procedure = description.procedures.find((each) => each.path === decodeURIComponent(location.hash.slice(1)));
  fill();
  if (!procedure) return;
  const page = $('#page').content.cloneNode(true);
  const kind = $('.kind', page);
  kind.textContent = procedure.kind;
  kind.classList.add(procedure.kind);
  $('h2', page).textContent = procedure.path;
  $('.doc', page).textContent = procedure.doc;
  $('.takes', page).textContent = procedure.inputText + (procedure.input && procedure.optional ? ' | undefined' : '');
  $('.gives', page).textContent = procedure.outputText;
  if (description.types) $('.types pre', page).textContent = description.types;
  else $('.types', page).remove();
  $('.go', page).textContent = procedure.kind === 'subscription' ? 'Subscribe' : 'Call';
  prepare($('form', page), procedure);
  $('#procedure').replaceChildren(page);
  document.title = procedure.path;
}

function prepare(form, procedure) {
  let input = { read: () => undefined };
  const fields = $('.fields', form);
  const toggle = $('.as-json', form);
  if (!procedure.input) {
    fields.append(Object.assign(document.createElement('p'), { className: 'hint', textContent: 'It takes nothing.' }));
    toggle.remove();
  } else {
    const use = (built) => { input = built; fields.replaceChildren(built.element); };
    use(build(procedure.input, description.records, 'input'));
    toggle.addEventListener('click', () => {
      const asJson = toggle.getAttribute('aria-pressed') !== 'true';
      toggle.setAttribute('aria-pressed', String(asJson));
      if (!asJson) return use(build(procedure.input, description.records, 'input'));
      let text = '';
      try { text = JSON.stringify(input.read(), null, 2) ?? ''; } catch { /* What is typed so far is no input yet. */ }
      use(json('input', text));
    });
  }
  form.addEventListener('keydown', (event) => { if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) form.requestSubmit(); });
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    $('.wrong', form)?.remove();
    try { run(procedure, procedure.input ? given(procedure, input.read()) : undefined); } catch (error) {
      if (!(error instanceof Fault)) throw error;
      const wrong = Object.assign(document.createElement('p'), { className: 'wrong', textContent: error.message });
      wrong.setAttribute('role', 'alert');
      $('.actions', form).before(wrong);
    }
  });
  $('.stop', form).addEventListener('click', () => running?.abort());
}

// An object without a single field is no input where there need not be one.
function given(procedure, value) {
  const isBare = value && typeof value === 'object' && Object.getPrototypeOf(value) === Object.prototype && !Object.keys(value).length;
  return procedure.optional && isBare ? undefined : value;
}

async function run(procedure, value) {
  running?.abort();
  const control = running = new AbortController();
  const view = outcome();
  const started = performance.now();
  const end = (ok, word) => view.status(ok ? 'good' : 'bad', word, `${Math.round(performance.now() - started)} ms`);
  view.status('live', 'Waiting', '');
  if (procedure.streams) view.stop(true);
  try {
    if (!procedure.streams) {
      const answer = await caller.call(procedure, value, control.signal);
      view.result(answer.value);
      end(answer.ok, answer.ok ? String(answer.status) : `${answer.status} ${answer.value?.data?.code ?? ''}`);
    } else if (procedure.kind === 'subscription') {
      const answer = await caller.subscribe(procedure, value, control.signal, view.event, (word) => view.status('live', word, ''));
      if (!answer.ok) view.result(answer.value, true);
      end(answer.ok, answer.ok ? (control.signal.aborted ? 'Stopped' : 'Ended') : answer.value?.data?.code ?? 'Failed');
    } else {
      const error = await caller.stream(procedure, value, control.signal, (data) => view.event({ data }));
      if (error) view.result(error, true);
      end(!error, error ? error.data?.code ?? 'Failed' : 'Ended');
    }
  } catch (error) {
    if (control.signal.aborted) end(true, 'Stopped');
    else { view.result(String(error)); end(false, 'No answer'); }
  }
  if (running === control) view.stop(false);
}

function outcome() {
  const section = $('.outcome');
  const [status, result] = [$('.status', section), $('.result', section)];
  section.hidden = false;
  result.textContent = '';
  const events = [];
  const print = (value) => (value === undefined ? 'undefined' : JSON.stringify(value, null, 2));
  return {
    status(state, word, time) {
      status.className = `status ${state}`;
      $('.word', status).textContent = word;
      $('.time', status).textContent = time;
    },
    result(value, isLast) { result.textContent = (isLast && result.textContent ? result.textContent + '\n' : '') + print(value); },
    event({ id, data }) {
      events.push((id === undefined ? '' : `${id}  `) + (JSON.stringify(data) ?? 'undefined'));
      if (events.length > MAX_EVENTS) events.shift();
      result.textContent = events.join('\n');
      result.scrollTop = result.scrollHeight;
    },
    stop(shown) { $('.stop').hidden = !shown; },
  };
}

document.addEventListener('keydown', (event) => {
  const typing = event.target.matches('input, textarea, select');
  if (event.key === '/' && !typing) { event.preventDefault(); $('#search').focus(); }
  if (!event.target.closest('aside') || !['ArrowDown', 'ArrowUp', 'Enter'].includes(event.key)) return;
  const buttons = [...document.querySelectorAll('#list button')];
  const place = buttons.indexOf(event.target);
  if (event.key === 'Enter') { if (event.target.id === 'search') buttons[0]?.click(); return; }
  if (event.target.id !== 'search' && place < 0) return;
  event.preventDefault();
  const next = place + (event.key === 'ArrowDown' ? 1 : -1);
  (next < 0 ? $('#search') : buttons[Math.min(next, buttons.length - 1)])?.focus();
});
$('#search').addEventListener('input', fill);
addEventListener('hashchange', show);
if (!location.hash && description.procedures.length) history.replaceState(null, '', '#' + description.procedures[0].path);
show();
