"use strict";
const DATA = JSON.parse(document.getElementById("data").textContent);
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const NAMES = {
  accuracy: "test accuracy", loss: "loss", energy_j: "energy", step: "step", kept_share: "kept",
  uncertain_share: "uncertain", true_high: "truly of high loss", precision: "precision", recall: "recall",
  threshold: "loss threshold", filter_forward: "filter forward", filter_backward: "filter training",
  uncertain_forward: "uncertain forward", select: "channel selection", thin: "gradient pruning", gradient: "weight gradient",
};
const named = (key) => NAMES[key] || key.replaceAll("_", " ");
const PREFIXES = [[1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "µ"], [1e-9, "n"], [1e-12, "p"]];
const prefixOf = (value) => PREFIXES.find(([scale]) => Math.abs(value) >= scale) || PREFIXES[3];
function si(value, unit) {
  if (value === null || value === undefined) return "–";
  const [scale, prefix] = prefixOf(value);
  return `${Number((value / scale).toPrecision(3))} ${prefix}${unit}`;
}
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const kib = (bytes) => `${(bytes / 1024).toLocaleString("en", { maximumFractionDigits: 1 })} KiB`;
const largest = (values) => Math.max(...values.filter((value) => value !== null));

function element(tag, properties = {}, children = []) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/* Energies on one axis share one prefix. */
function joules(values) {
  const [scale, prefix] = prefixOf(largest(values) || 1);
  return { values: values.map((value) => (value === null ? null : value / scale)), unit: `${prefix}J` };
}

/* Longer series are drawn as a running mean over a pale line of their values. */
const SMOOTHED = 60;
function runningMean(values, half) {
  return values.map((value, i) => {
    const near = values.slice(Math.max(0, i - half), i + half + 1);
    return near.reduce((sum, one) => sum + one, 0) / near.length;
  });
}

/* 1, 2 and 5 of each decade written out: the axis's own labels of less than two decades are single digits. */
function logTicks(values) {
  const seen = values.filter((value) => value > 0), low = Math.min(...seen), high = Math.max(...seen);
  const powers = Array.from({ length: Math.ceil(Math.log10(high / low)) + 2 }, (none, i) => Math.floor(Math.log10(low)) + i);
  const all = powers.flatMap((power) => [1, 2, 5].map((digit) => Number(`${digit}e${power}`)));
  return { tickvals: high / low < 300 ? all : all.filter((tick) => String(tick).replace(/0\.?/g, "").startsWith("1")) };
}

function layout(extra) {
  const axis = {
    gridcolor: css("--line"), zerolinecolor: css("--line"), linecolor: css("--line"), automargin: true,
    title: { standoff: 8 }, tickfont: { size: 12 },
  };
  const { xaxis = {}, yaxis = {}, ...rest } = extra;
  return {
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: css("--text") },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 50, r: 12, t: 10, b: 40 },
    hoverlabel: { font: { family: getComputedStyle(document.body).fontFamily }, align: "left" }, height: 320,
    xaxis: { ...axis, ...xaxis, title: { ...axis.title, ...xaxis.title } },
    yaxis: { ...axis, ...yaxis, title: { ...axis.title, ...yaxis.title } }, ...rest,
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, xanchor: "left", traceorder: "normal", ...NARROW() },
  };
}
/* On a phone the legend stands in two columns of small print. */
const NARROW = () => (innerWidth > 600 ? {} : { font: { size: 9 }, itemwidth: 30, entrywidthmode: "fraction", entrywidth: 0.5 });

const DRAW = {
  lines(chart, choice) {
    const key = choice || chart.x[0];
    const x = key === "energy_j" ? joules(chart.columns[key]) : { values: chart.columns[key], unit: "" };
    const series = Object.keys(chart.columns).filter((name) => !chart.x.includes(name));
    const format = chart.scale === "share" ? ":.1%" : ":.4g";
    const traces = series.flatMap((name, i) => {
      const y = chart.columns[name], color = css(`--c${i}`);
      const there = y.map((value, at) => at).filter((at) => y[at] !== null);
      const raw = {
        type: "scatter", mode: there.length < SMOOTHED ? "lines+markers" : "lines", name: named(name),
        x: there.map((at) => x.values[at]), y: there.map((at) => y[at]), marker: { size: 6 }, line: { color, width: 2 },
        hovertemplate: `%{y${format}} at %{x:.4g} ${x.unit}<extra>${named(name)}</extra>`,
      };
      if (there.length < SMOOTHED) return [raw];
      const mean = runningMean(raw.y, Math.round(there.length / 20));
      return [{ ...raw, opacity: 0.22, line: { color, width: 1 }, hoverinfo: "skip", hovertemplate: "", showlegend: false },
        { ...raw, y: mean }];
    });
    if (chart.reference) traces.push({
      type: "scatter", mode: "lines", name: chart.reference.name, x: [0, largest(x.values)],
      y: [chart.reference.value, chart.reference.value], line: { color: css("--muted"), width: 1.5, dash: "dash" },
      hovertemplate: `%{y${format}}<extra>${chart.reference.name}</extra>`,
    });
    const one = series.length === 1;
    const yaxis = { rangemode: chart.scale === "log" ? "normal" : "tozero", title: { text: one ? named(series[0]) : "" } };
    if (chart.scale === "share") Object.assign(yaxis, { tickformat: ".0%", range: [0, 1.02] });
    if (chart.scale === "log") Object.assign(yaxis, { type: "log", ...logTicks(traces.flatMap((trace) => trace.y)) });
    const title = key === "energy_j" ? `energy spent, ${x.unit}` : named(key);
    return [traces, layout({ showlegend: traces.length > 1 && (!one || !!chart.reference), xaxis: { title: { text: title }, rangemode: "tozero" }, yaxis })];
  },

  layers(chart) {
    const { layer, phase, energy_j, macs } = chart.columns;
    const names = [...new Set(layer)];
    const scaled = joules(energy_j);
    const traces = chart.phases.map((one, i) => {
      const rows = phase.map((name, at) => at).filter((at) => phase[at] === one);
      return {
        type: "bar", orientation: "h", name: named(one), y: rows.map((at) => layer[at]),
        x: rows.map((at) => scaled.values[at]), marker: { color: css(`--c${i}`) },
        text: rows.map((at) => `${si(energy_j[at], "J")}, ${si(macs[at], "MACs")}`), textposition: "none",
        hovertemplate: `%{y}, ${named(one)}: %{text}<extra></extra>`,
      };
    }).filter((trace) => trace.x.length);
    return [traces, layout({
      barmode: "stack", height: 170 + 24 * names.length, bargap: 0.25,
      xaxis: { title: { text: `energy, ${scaled.unit}` } },
      yaxis: { categoryorder: "array", categoryarray: names.reverse() },
    })];
  },

  memory(chart) {
    const passes = chart.columns.pass;
    const groups = Object.keys(chart.columns).filter((name) => name !== "pass");
    const at = passes.map((name, i) => i);
    const colors = ["--c0", "--c3", "--c9", "--c1", "--c2", "--c4", "--c5", "--c7"];
    const total = at.map((i) => groups.reduce((sum, name) => sum + chart.columns[name][i], 0));
    const traces = groups.map((name, i) => ({
      type: "scatter", mode: "lines", stackgroup: "memory", name, x: at, y: chart.columns[name].map((v) => v / 1024),
      line: { shape: "hvh", width: 0, color: css(colors[i]) }, fillcolor: css(colors[i]),
      text: chart.columns[name].map(kib), hovertemplate: "%{text}",
    }));
    traces.push({
      type: "scatter", mode: "markers", name: "total", x: at, y: total.map((v) => v / 1024), showlegend: false,
      marker: { opacity: 0 }, text: at.map((i) => `${kib(total[i])} during ${passes[i]}`), hovertemplate: "%{text}",
    });
    const shapes = [], annotations = [{
      x: chart.peak_index, y: chart.peak_bytes / 1024, text: `peak ${kib(chart.peak_bytes)}`, showarrow: true,
      arrowhead: 0, ax: chart.peak_index > at.length / 2 ? -55 : 55, ay: -22, arrowcolor: css("--text"),
    }];
    const limit = chart.limit_bytes;
    const shown = limit !== null && limit < 4 * chart.peak_bytes;
    if (shown) {
      shapes.push({
        type: "line", xref: "paper", x0: 0, x1: 1, y0: limit / 1024, y1: limit / 1024,
        line: { color: css("--bad"), width: 2, dash: "dash" },
      });
    }
    if (limit !== null) annotations.push({
      xref: "paper", x: 1, xanchor: "right", yref: shown ? "y" : "paper", y: shown ? limit / 1024 : 1, showarrow: false,
      yanchor: "bottom", text: `${shown ? "" : "far above: "}the board's RAM, ${kib(limit)}`, font: { color: css("--bad") },
      bgcolor: css("--panel"), opacity: 0.9,
    });
    const stage = (i) => { // pruning, gradient and error passes alternate: the backward pass
      const phase = passes[i].split(" ")[0];
      return ["error", "gradient", "select", "thin"].includes(phase) ? "backward" : named(phase);
    };
    const edges = at.filter((i) => i === 0 || stage(i) !== stage(i - 1));
    const middles = edges.map((i, k) => (i + (edges[k + 1] ?? at.length) - 1) / 2);
    shapes.push(...edges.slice(1).map((i) => ({
      type: "line", layer: "below", yref: "paper", x0: i - 0.5, x1: i - 0.5, y0: 0, y1: 1, line: { color: css("--line"), width: 1 },
    })));
    return [traces, layout({
      height: 420, hovermode: "x unified", shapes, annotations,
      xaxis: {
        title: { text: "passes of the step, in order" }, range: [-0.5, at.length - 0.5],
        tickvals: middles, ticktext: edges.map(stage), showgrid: false,
      },
      yaxis: { title: { text: "KiB" }, range: [0, 1.15 * Math.max(chart.peak_bytes, shown ? limit : 0) / 1024] },
    })];
  },

  numerics(chart, choice) {
    const key = choice || Object.keys(chart.measures)[0];
    const { layer, role, bits } = chart.columns;
    const layers = [...new Set(layer)], roles = [...new Set(role)];
    const share = key !== "sqnr_db", values = chart.columns[key] || layer.map(() => null);
    const grid = layers.map(() => roles.map(() => null)), text = layers.map(() => roles.map(() => ""));
    values.forEach((value, i) => {
      const row = layers.indexOf(layer[i]), column = roles.indexOf(role[i]);
      grid[row][column] = value;
      text[row][column] = value === null ? "" : share ? percent(value) : `${value.toFixed(0)} dB`;
    });
    const good = css("--panel"), poor = css("--c1");
    return [[{
      type: "heatmap", x: roles, y: layers, z: grid, text, texttemplate: "%{text}", xgap: 2, ygap: 2, showscale: false,
      colorscale: share ? [[0, good], [1, poor]] : [[0, poor], [1, good]],
      zmin: 0, zmax: share ? Math.max(0.05, largest(values)) : Math.max(40, largest(values)), hoverongaps: false,
      hovertemplate: `%{y}, %{x}: %{text}<extra></extra>`,
    }], layout({
      height: 120 + 26 * layers.length, xaxis: { side: "top", showgrid: false },
      yaxis: { autorange: "reversed", showgrid: false }, margin: { l: 60, r: 12, t: 40, b: 10 },
    })];
  },

  front(chart) {
    const c = chart.columns, quality = c[chart.quality], higher = chart.quality === "accuracy";
    const energy = joules(c.energy_j), ram = c.peak_ram_bytes, most = largest(ram);
    const hover = quality.map((value, i) => [
      `<b>${c.setting[i]}</b>`,
      (higher ? percent(value) : value.toPrecision(4)) + (c.accuracy_std?.[i] ? ` ± ${(100 * c.accuracy_std[i]).toFixed(1)}` : "")
        + ` over ${chart.n_seeds[i]} seed${chart.n_seeds[i] > 1 ? "s" : ""}`,
      `${si(c.energy_j[i], "J")}, ${percent(c.saved_energy_vs_fp32[i])} saved`,
      `${si(c.instance_time_s[i], "s")} an instance, ${si(c.instance_energy_j[i], "J")}`,
      `${kib(ram[i])} RAM${chart.fits[i] === false ? " – does not fit" : ""}`,
    ].join("<br>"));
    const order = quality.map((value, i) => i).sort((a, b) => c.energy_j[a] - c.energy_j[b]);
    let best = higher ? -Infinity : Infinity;
    const line = order.filter((i) => chart.usable[i] && (higher ? quality[i] > best : quality[i] < best) && ((best = quality[i]), true));
    const group = (name, on, color) => {
      const at = quality.map((value, i) => i).filter((i) => on(i));
      return {
        type: "scatter", mode: "markers", name, x: at.map((i) => energy.values[i]), y: at.map((i) => quality[i]),
        customdata: at.map((i) => chart.links[i]), text: at.map((i) => hover[i]), hovertemplate: "%{text}<extra></extra>",
        error_y: c.accuracy_std && higher
          ? { type: "data", array: at.map((i) => c.accuracy_std[i] || 0), thickness: 1, width: 0, color } : undefined,
        marker: {
          size: at.map((i) => 8 + 14 * Math.sqrt(ram[i] / most)), color, line: { width: 2, color },
          symbol: at.map((i) => `circle${chart.pareto[i] ? "" : "-open"}`), opacity: 0.9,
        },
      };
    };
    const traces = [
      {
        type: "scatter", mode: "lines", name: "front of accuracy and energy", x: line.map((i) => energy.values[i]),
        y: line.map((i) => quality[i]), line: { color: css("--muted"), width: 1.5, dash: "dot", shape: "hv" }, hoverinfo: "skip",
      },
      group("fits", (i) => chart.fits[i] !== false, css("--c0")),
      group("does not fit", (i) => chart.fits[i] === false, css("--bad")),
    ].filter((trace) => trace.x.length);
    return [traces, layout({
      height: 420, xaxis: { title: { text: `energy of the run, ${energy.unit}` }, rangemode: "tozero" },
      yaxis: { title: { text: higher ? "test accuracy" : "test loss" }, tickformat: higher ? ".0%" : "" },
    })];
  },
};
const WIDE = ["layers", "memory", "numerics", "front"];
const CHOICES = {
  lines: (chart) => Object.fromEntries(chart.x.map((key) => [key, `over ${named(key)}`])),
  numerics: (chart) => chart.measures,
};

const CONFIG = { displayModeBar: false, responsive: true };

function draw(figure) {
  const chart = DATA[figure.dataset.chart];
  const [traces, page] = DRAW[chart.kind](chart, figure.dataset.choice);
  return Plotly.react(figure.querySelector(".plot"), traces, page, CONFIG);
}

/* A chart as it stands alone: with its title, on a ground of its own; a data address. */
function image(figure, format) {
  const chart = DATA[figure.dataset.chart], [data, page] = DRAW[chart.kind](chart, figure.dataset.choice);
  const width = figure.clientWidth, height = page.height + 40;
  const title = { text: chart.title, x: 0.01, xanchor: "left", yref: "container", y: 0.98, yanchor: "top", automargin: true };
  const margin = { ...page.margin, t: page.margin.t + 30 };
  const own = { ...page, title, width, height, margin, paper_bgcolor: css("--panel") };
  return Plotly.toImage({ data, layout: own }, { format, width, height, scale: format === "png" ? 2 : 1 });
}

function dataTable(chart) {
  const names = Object.keys(chart.columns), n = chart.columns[names[0]].length;
  const cell = (tag, value) => element(tag, {
    textContent: value === null ? "–" : value, className: typeof value === "string" && tag === "td" ? "" : "number",
  });
  const rows = Array.from({ length: n }, (none, i) => element("tr", {}, names.map((name) => cell("td", chart.columns[name][i]))));
  const head = element("thead", {}, [element("tr", {}, names.map((name) => cell("th", name)))]);
  return element("div", { className: "scroll" }, [element("table", {}, [head, element("tbody", {}, rows)])]);
}

/* Title, note, switch, plot and data table; the plot itself waits until it is seen. */
function furnish(figure) {
  const chart = DATA[figure.dataset.chart], choices = CHOICES[chart.kind]?.(chart) || {};
  figure.classList.toggle("wide", WIDE.includes(chart.kind));
  const buttons = Object.entries(choices).map(([key, text]) => element("button", { type: "button", textContent: text, value: key }));
  const bar = element("div", { className: "switch" }, buttons.length > 1 ? buttons : []);
  const press = (key) => buttons.forEach((button) => button.setAttribute("aria-pressed", button.value === key));
  press(Object.keys(choices)[0]);
  bar.addEventListener("click", (event) => {
    if (!event.target.value) return;
    figure.dataset.choice = event.target.value;
    press(event.target.value);
    draw(figure);
  });
  const plot = element("div", { className: "plot" });
  const images = element("span", { className: "images" }, ["png", "svg"].map((format) => {
    const button = element("button", { type: "button", textContent: format.toUpperCase(), title: `Save as ${format}` });
    const download = `${chart.title.replaceAll(/\W+/g, "-")}.${format}`;
    button.addEventListener("click", async () => element("a", { download, href: await image(figure, format) }).click());
    return button;
  }));
  const table = element("details", {}, [element("summary", { textContent: "Data" })]);
  table.addEventListener("toggle", () => table.children.length < 2 && table.append(dataTable(chart)));
  figure.append(
    element("h3", { textContent: chart.title }), element("p", { textContent: chart.note }),
    element("div", { className: "bar" }, [bar, images]), plot, table,
  );
  seen.observe(figure);
}

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((one) => one.isIntersecting)) {
    seen.unobserve(entry.target);
    show(entry.target);
  }
}, { rootMargin: "600px" });

async function show(figure) {
  figure.dataset.drawn = "";
  await draw(figure);
  figure.querySelector(".plot").on("plotly_click", (event) => event.points[0]?.customdata && go(event.points[0].customdata));
}

function go(anchor) {
  const target = document.getElementById(anchor);
  if (target?.matches("details")) target.open = true;
  location.hash = anchor;
}

function sortBy(heading) {
  const table = heading.closest("table"), column = [...heading.parentNode.children].indexOf(heading);
  const up = heading.dataset.up !== "1";
  const scale = { G: 1e9, M: 1e6, k: 1e3, m: 1e-3, "µ": 1e-6, n: 1e-9 };
  const key = (row) => {
    const text = row.children[column].textContent, found = text.match(/^(-?[\d.,]+)\s?([GMkmµn]?)[JsK]?/);
    return found ? Number(found[1].replaceAll(",", "")) * (scale[found[2]] || 1) : text;
  };
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    return (up ? 1 : -1) * (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y)));
  });
  table.tBodies[0].append(...rows);
  heading.dataset.up = up ? "1" : "0";
}

const drawn = () => [...document.querySelectorAll("figure[data-drawn]")];
document.querySelectorAll("figure.chart").forEach(furnish);
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='#run']"), heading = event.target.closest(".sortable th");
  if (link) go(link.hash.slice(1));
  if (heading) sortBy(heading);
});
if (location.hash) go(location.hash.slice(1));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn().forEach(draw));
addEventListener("beforeprint", () => {
  document.querySelectorAll("details[open] > details.about").forEach((details) => { details.open = true; });
  document.querySelectorAll("details[open] figure.chart, section figure.chart").forEach((figure) => {
    if (!("drawn" in figure.dataset)) show(figure);
    else draw(figure);
  });
});
