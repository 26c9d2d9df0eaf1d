// The explorer: a table of all queries with filters, and the selected query with its video and completions.

const $ = id => document.getElementById(id);
const form = document.querySelector('.filters');
const narrow = matchMedia('(max-width: 60rem)');
const NO_MATCH = 'No query matches the filters.';
const BETTER = 'better than ', WORSE = 'worse than ', OVERSCAN = 10;
const DEFAULTS = { view: 'summary', id: '', search: '', candidate: '', outcome: '', difficulty: '', category: '',
  compare: '', score: 'RA-IoU', min: '', max: '', sort: '', descending: '' };
const SHORT = { answered: 'answered', refused: 'refused', misplaced: 'misplaced', unanswered: 'no answer',
  skipped: 'skipped', uncorrected: 'correction', right: 'correct' };
let data, queries, shown = [], state = { ...DEFAULTS }, player;
let texts = { completion: [] }, searchable = null; // the long texts are loaded after the rest

const number = value => value === null || value === undefined ? '–' : value.toFixed(3);
const seconds = ([start, end]) => `${start.toFixed(2)} to ${end.toFixed(2)} s`;
const candidateIndex = () => Math.max(0, data.candidates.findIndex(one => one.name === state.candidate));
const color = index => PALETTE[darkScheme.matches ? 'dark' : 'light'][index % 7]; // as in the plots
const shortOutcome = outcome => SHORT[outcome] ?? outcome;
const badge = outcome => element('span', { class: `badge ${outcome}`, title: data.outcomes[outcome] }, shortOutcome(outcome));

// The state is in the address, so that it can be shared.

function readAddress() {
  state = { ...DEFAULTS, ...Object.fromEntries(new URLSearchParams(location.hash.slice(1))) };
}

function writeAddress() {
  const changed = Object.entries(state).filter(([name, value]) => value !== DEFAULTS[name]);
  try {
    history.replaceState(null, '', `#${new URLSearchParams(changed)}`);
  } catch { /* a sandboxed frame has no address */ }
}

// The table.

function searchableTexts() {
  searchable ??= queries.query.map((query, index) => [query, queries.id[index], data.videos[queries.video[index]].name,
    ...texts.completion.map(completions => completions[index])].join('\n').toLowerCase());
  return searchable;
}

function columns() {
  const own = data.candidates[candidateIndex()];
  const scores = data.candidates.map((one, index) => ({
    key: `RA-IoU ${one.name}`, title: data.candidates.length > 1 ? `RA-IoU ${one.name}` : 'RA-IoU', numeric: true, width: '5.8rem',
    tooltip: `RA-IoU of ${one.name}`, values: one.scores['RA-IoU'], first: one === own,
  }));
  if (state.score !== 'RA-IoU' && own.scores[state.score]) {
    scores.unshift({ key: state.score, title: state.score.replaceAll('_', ' ').replace('/', ' / '), numeric: true,
      width: '5.8rem', values: own.scores[state.score] });
  }
  return [
    { key: 'outcome', title: 'outcome', width: '6.4rem', values: own.outcome, render: badge },
    { key: 'query', title: 'query', width: 'minmax(7rem, 3fr)', values: queries.query },
    { key: 'video', title: 'video', width: 'minmax(4.4rem, 1fr)', values: queries.video, render: video => data.videos[video].name },
    { key: 'difficulty', title: 'difficulty', width: '5.4rem', values: queries.difficulty },
    ...scores,
  ];
}

function filter() {
  const own = data.candidates[candidateIndex()], scores = own.scores[state.score];
  const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
  const found = words.length ? searchableTexts() : null;
  const min = state.min === '' ? -Infinity : Number(state.min), max = state.max === '' ? Infinity : Number(state.max);
  const limited = scores && (state.min !== '' || state.max !== '');
  const better = state.compare.startsWith(BETTER), values = own.scores['RA-IoU'];
  const other = data.candidates.find(one => state.compare === `${better ? BETTER : WORSE}${one.name}`)?.scores['RA-IoU'];
  shown = [];
  for (let index = 0; index < queries.id.length; index++) {
    if (state.outcome && own.outcome[index] !== state.outcome) continue;
    if (state.difficulty && queries.difficulty[index] !== state.difficulty) continue;
    if (state.category && !queries.categories[index].includes(state.category)) continue;
    if (limited && !(scores[index] !== null && scores[index] >= min && scores[index] <= max)) continue;
    if (other && !(better ? values[index] > other[index] : values[index] < other[index])) continue;
    if (words.length && !words.every(word => found[index].includes(word))) continue;
    shown.push(index);
  }
  const column = columns().find(one => one.key === state.sort);
  if (column) {
    const sign = state.descending ? -1 : 1, key = column.render === badge ? shortOutcome : column.numeric ? null : String;
    const keys = column.key === 'video' ? column.values.map(video => data.videos[video].name)
      : key ? column.values.map(key) : column.values;
    const order = new Intl.Collator(undefined, { numeric: true });
    shown.sort((one, two) => {
      const a = keys[one], b = keys[two];
      if (a === null || b === null) return (a === null) - (b === null); // unknown values last
      return sign * (column.numeric ? a - b : order.compare(a, b));
    });
  }
}

const rowHeight = () => narrow.matches ? 62 : 34;

function drawRows() {
  const height = rowHeight(), rows = $('rows'), space = $('space'), all = columns();
  const first = Math.max(0, Math.floor(rows.scrollTop / height) - OVERSCAN);
  const last = Math.min(shown.length, Math.ceil((rows.scrollTop + rows.clientHeight) / height) + OVERSCAN);
  space.style.height = `${shown.length * height}px`;
  space.replaceChildren(...shown.slice(first, last).map((index, offset) => element('div', {
    class: 'row', role: 'row', id: `row-${index}`, 'aria-rowindex': first + offset + 2,
    'aria-selected': queries.id[index] === state.id, style: `top: ${(first + offset) * height}px`,
    onclick: () => select(index, true),
  }, ...all.map(column => {
    const value = column.values[index];
    const text = column.render ? column.render(value) : column.numeric ? number(value) : value;
    const name = column.numeric ? `number${column.first ? ' first' : ''}` : column.key;
    return element('span', { class: name, role: 'gridcell', title: typeof text === 'string' ? text : false }, text);
  }))));
  if (!shown.length) space.append(element('p', { class: 'note empty' }, NO_MATCH));
}

function drawHead() {
  const all = columns();
  const list = $('rows').style;
  list.setProperty('--columns', all.map(column => column.width).join(' '));
  list.setProperty('--width', `${23.2 + 5.8 * all.filter(column => column.numeric).length}rem`);
  $('head').replaceChildren(...all.map(column => {
    const sorted = state.sort === column.key;
    return element('button', {
      type: 'button', role: 'columnheader', title: column.tooltip ?? `Sort by ${column.title}`,
      class: column.numeric ? 'number' : '', 'aria-sort': sorted ? (state.descending ? 'descending' : 'ascending') : 'none',
      onclick: () => {
        Object.assign(state, sorted && state.descending ? { sort: '', descending: '' }
          : { sort: column.key, descending: sorted ? '1' : '' });
        update();
      },
    }, column.title + (sorted ? (state.descending ? ' ↓' : ' ↑') : ''));
  }));
}

function option(value, title = value) {
  return element('option', { value }, title);
}

function fillForm() {
  const own = data.candidates[candidateIndex()], counts = {};
  own.outcome.forEach(outcome => { counts[outcome] = (counts[outcome] ?? 0) + 1; });
  const others = data.candidates.filter(one => one !== own).map(one => one.name);
  const found = Object.keys(data.outcomes).filter(outcome => counts[outcome] || outcome === state.outcome);
  const lists = {
    candidate: data.candidates.map(one => option(one.name)),
    outcome: [option('', 'all'), ...found.map(one => option(one, `${data.outcomes[one]} (${(counts[one] ?? 0).toLocaleString()})`))],
    difficulty: [option('', 'all'), ...[...new Set(queries.difficulty)].sort().map(one => option(one, one === 'original' ? 'original (fits the video)' : one))],
    category: [option('', 'all'), ...[...new Set(queries.categories.flat())].sort().map(one => option(one))],
    compare: [option('', 'nothing'), ...others.flatMap(name => [option(WORSE + name), option(BETTER + name)])],
    score: Object.keys(own.scores).map(one => option(one)),
  };
  for (const [name, options] of Object.entries(lists)) {
    form.elements[name].replaceChildren(...options);
    form.elements[name].closest('label').hidden = options.length < 2;
  }
  if (!state.candidate) state.candidate = DEFAULTS.candidate = own.name;
  for (const input of form.elements) if (input.name) input.value = state[input.name];
}

function update(keepsScroll = false) {
  fillForm();
  filter();
  drawHead();
  if (!keepsScroll) $('rows').scrollTop = 0;
  drawRows();
  $('count').textContent = `${shown.length.toLocaleString()} of ${queries.id.length.toLocaleString()} queries`;
  $('rows').setAttribute('aria-rowcount', shown.length + 1);
  followFilters();
  writeAddress();
}

// Replaces a selected query that the filters leave out: by the first one, or by an empty pane.
function followFilters() {
  if (shown.includes(queries.id.indexOf(state.id))) return;
  if (state.search && texts.completion.length < data.candidates.length) return; // not all texts can be searched yet
  if (shown.length && !narrow.matches) select(shown[0]);
  else deselect();
}

function deselect() {
  state.id = '';
  player?.pause();
  player = undefined;
  $('rows').removeAttribute('aria-activedescendant');
  $('detail').replaceChildren(element('p', { class: 'note' }, shown.length ? 'Select a query.' : NO_MATCH));
}

// The selected query.

function select(index, opens = false) {
  state.id = queries.id[index];
  if (opens) $('queries').classList.add('open');
  const place = shown.indexOf(index), height = rowHeight(), rows = $('rows');
  if (place >= 0) {
    if (place * height < rows.scrollTop) rows.scrollTop = place * height;
    const end = (place + 1) * height - rows.clientHeight + $('head').offsetHeight;
    if (end > rows.scrollTop) rows.scrollTop = end;
  }
  drawRows();
  rows.setAttribute('aria-activedescendant', `row-${index}`);
  drawDetail(index);
  writeAddress();
}

function step(offset) {
  const place = shown.findIndex(index => queries.id[index] === state.id);
  const next = Math.max(0, Math.min(shown.length - 1, place < 0 ? 0 : place + offset));
  if (shown.length) select(shown[next]);
}

function videoAddress(index) {
  const video = data.videos[queries.video[index]], clip = data.clips[queries.video[index]];
  if (video.file) return URL.createObjectURL(video.file);
  return clip ? `data:video/mp4;base64,${clip}` : video.href;
}

function makePlayer(index) {
  const address = videoAddress(index), name = data.videos[queries.video[index]].name;
  const picker = element('input', { type: 'file', webkitdirectory: '', hidden: '', onchange: () => {
    const files = Object.fromEntries([...picker.files].map(file => [file.name, file]));
    for (const video of data.videos) video.file = files[video.name] ?? video.file;
    drawDetail(index);
  } });
  const missing = element('p', { class: 'note', hidden: address ? false : null },
    `${name} cannot be played here: it is elsewhere, or in a format that this browser does not know. `,
    element('button', { type: 'button', onclick: () => picker.click() }, 'Choose the folder of the videos'),
    ' or evaluate with --embed-clips.', picker);
  missing.hidden = Boolean(address);
  player = element('video', { controls: '', preload: 'metadata', muted: '', playsinline: '', onerror: () => {
    missing.hidden = false;
    player.hidden = true;
  } });
  player.muted = true;
  player.hidden = !address;
  if (address) player.src = address;
  return element('div', {}, player, missing);
}

let playedEnd = Infinity;

async function play([start, end]) {
  if (!player || player.hidden) return;
  playedEnd = end;
  player.currentTime = start;
  await player.play().catch(() => {});
}

function timeline(index) {
  const truth = queries.segments[index];
  const tracks = [{ name: 'truth', color: 'var(--text)', segments: truth, text: 'does not fit the video' },
    ...data.candidates.map((one, number) => ({
      name: one.name, color: color(number), segments: one.segments[index],
      text: one.skipped[index] !== null ? 'skipped' : one.outcome[index] === 'unanswered' ? 'no answer' : 'no segment',
    }))];
  const ends = tracks.flatMap(track => track.segments.flat()).filter(time => time < 1e6);
  const duration = queries.duration[index] ?? Math.max(1, ...ends);
  const percent = time => 100 * Math.max(0, Math.min(1, time / duration));
  const heads = [];
  const rows = tracks.map(track => {
    const head = element('i');
    heads.push(head);
    const bars = track.segments.map(segment => element('button', {
      type: 'button', title: `${track.name}: ${seconds(segment)}`, 'aria-label': `Play ${track.name}, ${seconds(segment)}`,
      style: `left: ${percent(segment[0])}%; width: ${percent(segment[1]) - percent(segment[0])}%; --color: ${track.color}`,
      onclick: () => play(segment),
    }));
    return element('div', { class: 'track' }, element('span', { title: track.name }, track.name),
      element('div', { class: 'lane' }, ...(bars.length ? bars : [element('em', {}, track.text)]), head));
  });
  const ticks = [0, 1, 2, 3, 4].map(quarter => element('span', { style: `left: ${25 * quarter}%` },
    `${(duration * quarter / 4).toFixed(duration < 40 ? 1 : 0)}${quarter === 4 ? ' s' : ''}`));
  player.ontimeupdate = () => {
    if (player.currentTime >= playedEnd) {
      player.pause();
      playedEnd = Infinity;
    }
  };
  const current = player;
  const follow = () => {
    if (current !== player) return;
    heads.forEach(head => { head.style.left = `${percent(player.currentTime)}%`; });
    if (player.currentTime >= playedEnd && !player.paused) player.ontimeupdate();
    requestAnimationFrame(follow);
  };
  requestAnimationFrame(follow);
  return element('div', { class: 'timeline' }, ...rows,
    element('div', { class: 'track' }, element('span'), element('div', { class: 'ticks' }, ...ticks)));
}

function scoreTable(index) {
  const names = [...new Set(data.candidates.flatMap(one => Object.keys(one.scores)))];
  const rows = names.map(name => [name, data.candidates.map(one => one.scores[name]?.[index] ?? null)])
    .filter(([, values]) => values.some(value => value !== null));
  return element('table', {}, element('thead', {}, element('tr', {}, element('th', {}, 'score'),
    ...data.candidates.map(one => element('th', { class: 'number' }, one.name)))),
  element('tbody', {}, ...rows.map(([name, values]) => element('tr', {},
    element('td', { class: name.includes('/') ? 'part' : '' }, name.split('/').pop().replaceAll('_', ' ')),
    ...values.map(value => element('td', { class: 'number' }, number(value)))))));
}

function drawDetail(index) {
  const truth = queries.segments[index], references = texts.references?.[index] ?? [];
  const meta = [data.videos[queries.video[index]].name,
    queries.duration[index] === null ? '' : `${queries.duration[index].toFixed(1)} s`,
    queries.difficulty[index], ...queries.categories[index]].filter(Boolean).join(' · ');
  const fits = truth.length ? `Fits the video: ${truth.map(seconds).join(', ')}` : `Does not fit the video: ${texts.answer?.[index] ?? '…'}`;
  const made = makePlayer(index);
  $('detail').replaceChildren(
    element('div', { class: 'bar-buttons' },
      element('button', { type: 'button', id: 'back', onclick: close }, '← Back'),
      element('button', { type: 'button', id: 'previous', onclick: () => step(-1) }, '↑ Previous'),
      element('button', { type: 'button', id: 'next', onclick: () => step(1) }, '↓ Next')),
    element('h2', {}, queries.query[index]), element('p', { class: 'note' }, meta),
    made, timeline(index), element('p', {}, element('b', {}, 'Truth: '), fits),
    ...data.candidates.flatMap((one, number) => [
      element('h3', {}, one.name, badge(one.outcome[index])),
      element('div', { class: 'completion', style: `--color: ${color(number)}` },
        ...(one.skipped[index] === null ? coloredCompletion(texts.completion[number]?.[index] ?? '…') : [`skipped: ${one.skipped[index]}`]))]),
    element('h3', {}, 'Scores'), scoreTable(index),
    ...(references.length ? [element('details', {}, element('summary', {}, `Queries that fit the video (${references.length})`),
      element('ul', {}, ...references.map(text => element('li', {}, text))))] : []));
  $('detail').scrollTop = 0;
}

function close() {
  $('queries').classList.remove('open');
  player?.pause();
}

// The page.

function show() {
  document.body.classList.toggle('wide', state.view === 'queries');
  for (const view of ['summary', 'queries']) {
    $(view).hidden = state.view !== view;
    const link = document.querySelector(`[data-view=${view}]`);
    if (state.view === view) link.setAttribute('aria-current', 'page'); else link.removeAttribute('aria-current');
  }
  if (!data || state.view !== 'queries') return;
  const { id } = state;
  update();
  if (id && id === state.id) select(queries.id.indexOf(id), narrow.matches);
}

document.addEventListener('keydown', event => {
  if (state.view !== 'queries' || event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches('input, select, textarea');
  if (event.key === 'Escape') {
    if (typing) event.target.blur(); else close();
    return;
  }
  if (typing) return;
  const index = queries.id.indexOf(state.id), segments = index < 0 ? null : [queries.segments[index],
    ...data.candidates.map(one => one.segments[index])];
  const actions = {
    j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1),
    Home: () => step(-Infinity), End: () => step(Infinity), '/': () => form.elements.search.focus(),
    t: () => segments?.[0].length && play(segments[0][0]),
  };
  if (!event.target.matches('button, summary, video, a')) {
    actions[' '] = () => player && (player.paused ? player.play() : player.pause());
    actions.Enter = () => index >= 0 && select(index, true);
  }
  const action = actions[event.key]
    ?? (/^[1-9]$/.test(event.key) ? () => segments?.[event.key]?.length && play(segments[event.key][0]) : null);
  if (!action) return;
  event.preventDefault();
  action();
});

form.addEventListener('input', event => {
  state[event.target.name] = event.target.value;
  update();
});
$('reset').onclick = () => {
  state = { ...DEFAULTS, view: 'queries', id: state.id };
  update();
};
$('more').onclick = () => form.classList.toggle('filtering');
$('rows').addEventListener('scroll', () => requestAnimationFrame(drawRows));
addEventListener('resize', () => data && state.view === 'queries' && drawRows());
addEventListener('hashchange', () => { readAddress(); close(); show(); });

async function load(name) {
  await new Promise(resolve => setTimeout(resolve)); // lets the page answer between blocks
  return JSON.parse(await inflate(name));
}

async function loadTexts() {
  texts = { answer: await load('answer'), references: await load('references'), completion: [] };
  for (const index of data.candidates.keys()) texts.completion.push(await load(`completion-${index}`));
  searchable = null;
  const index = queries.id.indexOf(state.id);
  if (state.view === 'queries' && state.search) update(true);
  if (state.view === 'queries' && index >= 0) drawDetail(index);
}

async function start() {
  readAddress();
  show();
  const parsed = new Promise(resolve => document.addEventListener('DOMContentLoaded', resolve));
  data = await load('data');
  queries = data.queries;
  DEFAULTS.candidate = data.candidates[0].name;
  readAddress();
  show();
  performance.mark('interactive');
  await parsed;
  await loadTexts();
  document.body.dataset.ready = '';
}

start();
