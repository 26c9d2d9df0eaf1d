// Draws the Vega-Lite specifications in `.chart` elements when they come into view, in the page's colors.

// Okabe and Ito's colors, which color-blind people can tell apart, in the order of their contrast to the page.
const PALETTE = {
  light: ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9', '#e69f00', '#777777'],
  dark: ['#56b4e9', '#e69f00', '#2fbf94', '#e39cc4', '#f0e442', '#f07c34', '#aaaaaa'],
};
const darkScheme = matchMedia('(prefers-color-scheme: dark)');

function chartConfig() {
  const dark = darkScheme.matches;
  const colors = PALETTE[dark ? 'dark' : 'light'];
  const text = dark ? '#c9ccd1' : '#44474c', grid = dark ? '#33363b' : '#e3e5e8';
  return {
    background: 'transparent',
    font: 'system-ui, sans-serif',
    view: { stroke: null },
    params: [{ name: 'accent', value: colors[0] }],
    range: { category: colors },
    mark: { color: colors[0] },
    line: { strokeWidth: 2 },
    point: { size: 40 },
    rule: { color: text },
    text: { color: text },
    axis: {
      labelColor: text, titleColor: text, gridColor: grid, domainColor: grid, tickColor: grid,
      labelFontSize: 12, titleFontSize: 12, titleFontWeight: 'normal', labelLimit: innerWidth < 600 ? 150 : 320,
    },
    legend: {
      labelColor: text, titleColor: text, labelFontSize: 12, orient: 'top', direction: 'horizontal', labelLimit: 240,
      columns: innerWidth < 600 ? 1 : 3, symbolOpacity: 1, symbolBaseFillColor: text,
    },
    axisY: { minExtent: 34 },
    axisXQuantitative: { labelOverlap: true },
  };
}

function showTooltip(_, event, __, value) {
  const box = document.getElementById('tooltip');
  box.hidden = !value;
  if (!value) return;
  const lines = typeof value === 'object' ? Object.entries(value) : [['', value]];
  box.replaceChildren(...lines.filter(([, text]) => text !== undefined && text !== '').map(([name, text]) => {
    const line = document.createElement('div');
    line.textContent = name.trim() ? `${name}: ${text}` : text;
    return line;
  }));
  const left = Math.min(event.clientX + 12, innerWidth - box.offsetWidth - 8);
  const above = event.clientY + 24 + box.offsetHeight > innerHeight;
  box.style.left = `${Math.max(4, left)}px`;
  box.style.top = `${event.clientY + (above ? -8 - box.offsetHeight : 16)}px`;
}

// Exponential moving average of each series, corrected for its start; `weight` is that of the past.
function smoothed(rows, weight) {
  const states = {};
  return rows.map(row => {
    const state = states[row.series] ??= { mean: 0, norm: 0 };
    state.mean = weight * state.mean + (1 - weight) * row.y;
    state.norm = weight * state.norm + 1 - weight;
    return { ...row, smooth: Number((state.mean / state.norm).toPrecision(6)) };
  });
}

const smoothing = document.getElementById('smoothing');
const drawn = new Map(); // element -> { spec, view }

async function drawChart(element) {
  const spec = drawn.get(element)?.spec ?? JSON.parse(element.querySelector('script').textContent);
  if (element.matches('.smooth')) spec.data.values = smoothed(spec.data.values, Number(smoothing?.value ?? 0));
  await loadVega();
  drawn.get(element)?.view.finalize();
  const sized = { width: 'container', autosize: { type: 'fit-x', contains: 'padding' }, ...spec };
  const compiled = vegaLite.compile(sized, { config: chartConfig(), logger: vega.logger(vega.Error) }).spec;
  const view = new vega.View(vega.parse(compiled), {
    logLevel: vega.Error, container: element, hover: true, renderer: 'svg' });
  drawn.set(element, { spec, view });
  await view.tooltip(showTooltip).runAsync();
}

let vegaLoaded;
function loadVega() {
  vegaLoaded ??= (async () => {
    for (const id of ['vega', 'vega-lite']) {
      const script = document.createElement('script');
      script.textContent = await inflate(id);
      document.head.append(script);
    }
  })();
  return vegaLoaded;
}

const observer = new IntersectionObserver(entries => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    observer.unobserve(target);
    drawChart(target);
  }
}, { rootMargin: '300px' });
document.querySelectorAll('.chart').forEach(element => observer.observe(element));

// The plots that were not in view are drawn before the browser prints the page. A browser does not wait for a file to
// be loaded or decompressed then, so Vega is loaded before.
addEventListener('load', () => (window.requestIdleCallback ?? setTimeout)(loadVega));
addEventListener('beforeprint', () => document.querySelectorAll('.chart').forEach(element => {
  if (!drawn.has(element) && element.offsetParent) drawChart(element);
}));

const redraw = () => drawn.forEach((_, element) => drawChart(element));
darkScheme.addEventListener('change', redraw);
smoothing?.addEventListener('input', redraw);
