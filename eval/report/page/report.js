"use strict";
// The page's charts, sorting and toggles. All numbers come from the JSON in #data; nothing is fetched.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const names = Object.keys(data.looks);
  const shown = new Set(names);
  const byId = (id) => document.getElementById(id);
  const layout = (more) => Object.assign({
    font: { family: 'system-ui, "DejaVu Sans", sans-serif', size: 13, color: "#1d1d1f" },
    margin: { l: 64, r: 16, t: 16, b: 56 }, hovermode: "closest", paper_bgcolor: "#fff", plot_bgcolor: "#fff",
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 }, showlegend: false,
  }, more);
  // The page asks the network for nothing: no button that would send a chart anywhere.
  // Plotly's own reaction to a resized window (responsive) would take away the height that the layout asks for.
  const config = { displaylogo: false, showSendToCloud: false, plotlyServerURL: "", modeBarButtonsToRemove: ["select2d", "lasso2d", "sendChartToCloud"] };
  // Plotly reads a little HTML in labels: names from files are shown as they are.
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const cut = (name) => window.innerWidth < 600 && name.length > 16 ? name.slice(0, 15) + "\u2026" : name;
  // On a narrow screen a title takes several lines of at most 32 characters, broken between words.
  function wrap(title) {
    if (window.innerWidth >= 600) return plain(title);
    const lines = [""];
    for (const word of title.split(" ")) {
      if (lines.at(-1) && (lines.at(-1) + word).length > 32) lines.push("");
      lines.push(`${lines.pop()} ${word}`.trim());
    }
    return lines.map(plain).join("<br>");
  }
  const axis = (title, more) => Object.assign({
    title: { text: title, standoff: 8, font: { size: window.innerWidth < 600 ? 11 : 14 } }, gridcolor: "#e6e8eb", linecolor: "#9aa0a6", ticks: "outside", zeroline: false, automargin: true,
  }, more);
  // Why a quality is missing: `what` is a column or a slope, such as "F,D".
  const why = (what) => data.no_scores && (what.startsWith("downstream") || what.includes("D")) ? `: ${data.no_scores}` : "";
  const words = (name) => data.words[name] ?? name;
  // The width is given, because plotly keeps that of the first drawing when the window changes.
  const show = (id, traces, more) => Plotly.react(id, traces, Object.assign(more, { width: byId(id).clientWidth || undefined }), config);
  const short = (value) => value === null || value === undefined ? "unknown" : Number(value.toPrecision(4)).toString();
  const count = (value) => {
    const unit = [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]].find(([size]) => value >= size);
    return value === null ? "unknown" : unit ? Number((value / unit[0]).toPrecision(3)) + unit[1] : short(value);
  };

  // ---- controls -------------------------------------------------------------------------------------------------
  function select(parent, label, choices, change) {
    const box = document.createElement("label"), list = document.createElement("select");
    box.append(label + " ", list);
    for (const [value, text] of choices) list.append(new Option(text, value));
    list.name = label;
    list.addEventListener("change", change);
    byId(parent).append(box);
    if (choices.length < 2) box.hidden = true;
    return () => list.value;
  }
  function check(parent, label, on, change) {
    const box = document.createElement("label"), input = document.createElement("input");
    input.type = "checkbox"; input.checked = on; input.name = label;
    input.addEventListener("change", change);
    box.append(input, label);
    byId(parent).append(box);
    return () => input.checked;
  }

  // ---- quality against cost -------------------------------------------------------------------------------------
  const ids = Object.entries(data.y), costs = Object.entries(data.x);
  const main = {
    y: select("controls-main", "Quality", ids, drawMain),
    x: select("controls-main", "Against", costs, drawMain),
    protocol: select("controls-main", "Protocol", data.protocols.map((p) => [p, p || "plain sizes"]), drawMain),
    log: check("controls-main", "logarithmic", true, drawMain),
    lines: check("controls-main", "lines and bands", true, drawMain),
    front: check("controls-main", "Pareto frontier", true, drawMain),
    runs: check("controls-main", "single runs", false, drawMain),
  };

  function frontier(cells, x, y) {
    // Speed is better when higher, every other cost when lower; a loss is no cost and has no frontier.
    if (x === "upstream_nll") return [];
    const sign = x === "steps_per_second" ? -1 : 1;
    const sorted = [...cells].sort((a, b) => sign * (a.x[x] - b.x[x]) || b.y[y] - a.y[y]);
    let best = -Infinity;
    return sorted.filter((cell) => cell.y[y] > best && (best = cell.y[y], true));
  }

  // Decoder-only models have the colour and the shape of their architecture, open, and dashed lines.
  const symbol = (look) => look.symbol + (look.filled ? "" : "-open");
  // Bands of all architectures would cover each other: only the reference's is seen, and that of what is pointed at.
  const band = (name, pointed) => data.looks[name].color + (name === data.reference || name === pointed ? "2b" : "00");
  function point(pointed) {
    const plot = byId("plot-main"), at = plot.data.flatMap((trace, i) => trace.meta ? [i] : []);
    if (at.length) Plotly.restyle(plot, { fillcolor: at.map((i) => band(plot.data[i].meta, pointed)) }, at);
  }
  // Cells that lie on one another: within about a marker's width in both directions.
  function together(cells, place) {
    const spots = cells.map(place), reach = [0, 1].map((k) => 0.012 * (Math.max(...spots.map((s) => s[k])) - Math.min(...spots.map((s) => s[k]))));
    const groups = [];
    spots.forEach((spot, i) => {
      const near = groups.find((g) => [0, 1].every((k) => Math.abs(g.spot[k] - spot[k]) <= reach[k]));
      if (near) near.cells.push(cells[i]); else groups.push({ spot, cells: [cells[i]] });
    });
    return groups.filter((g) => g.cells.length > 1);
  }

  function drawMain() {
    const x = main.x(), y = main.y(), protocol = main.protocol();
    const cells = data.cells.filter((c) => c.protocol === protocol && shown.has(c.architecture) && c.x[x] !== null && c.y[y] !== null);
    const largest = Math.max(...data.cells.map((c) => c.params || 0)), traces = [];
    if (main.lines()) data.lines.filter((l) => l.protocol === protocol && l.x_axis === x && l.y_axis === y && shown.has(l.architecture)).forEach((l) => {
      const { color, filled } = data.looks[l.architecture];
      if (l.low.every((v) => v !== null)) traces.push({
        x: [...l.x, ...[...l.x].reverse()], y: [...l.high, ...[...l.low].reverse()], fill: "toself", fillcolor: band(l.architecture, ""),
        line: { width: 0 }, mode: "lines", hoverinfo: "skip", meta: l.architecture,
      });
      traces.push({ x: l.x, y: l.y, mode: "lines", line: { color, width: 1.3, dash: filled ? "solid" : "dash" }, hoverinfo: "skip" });
    });
    const front = main.front() ? frontier(cells, x, y) : [];
    if (front.length) traces.push({
      x: front.map((c) => c.x[x]), y: front.map((c) => c.y[y]), mode: "lines", hoverinfo: "skip",
      line: { color: "#777", width: 1.5, dash: "dot", shape: x === "steps_per_second" ? "vh" : "hv" },
    });
    const log = main.log() && x !== "upstream_nll";
    const crowds = together(cells, (c) => [log ? Math.log10(c.x[x]) : c.x[x], c.y[y]]);
    const beside = (cell) => {
      const others = (crowds.find((g) => g.cells.includes(cell))?.cells ?? []).filter((c) => c !== cell);
      return others.length ? "<br>at the same place: " + others.slice(0, 6).map((c) => plain(`${c.architecture} ${c.size}`)).join(", ") + (others.length > 6 ? ` and ${others.length - 6} more` : "") : "";
    };
    for (const name of names.filter((n) => shown.has(n))) {
      const look = data.looks[name], own = cells.filter((c) => c.architecture === name);
      if (main.runs()) traces.push({
        x: own.flatMap((c) => c.runs[y].map(() => c.x[x])), y: own.flatMap((c) => c.runs[y]), mode: "markers",
        marker: { color: look.color, symbol: look.symbol + "-open", size: 6, opacity: 0.7 },
        text: own.flatMap((c) => c.seeds.map((s) => `${plain(name)} ${plain(c.size)}, seed ${s}`)), hovertemplate: "%{text}: %{y:.4g}<extra></extra>",
      });
      traces.push({
        x: own.map((c) => c.x[x]), y: own.map((c) => c.y[y]), mode: "markers", name: plain(name),
        error_y: { type: "data", array: own.map((c) => c.se[y] ?? 0), color: look.color, thickness: 1.2, width: 2 },
        marker: { color: look.color, symbol: symbol(look), line: { color: "#fff", width: look.filled ? 0.7 : 1.8 }, opacity: 0.9,
          size: own.map((c) => 8 + 14 * Math.sqrt((c.params || 0) / (largest || 1))) },
        text: own.map((c) => `${plain(name)} ${plain(c.size)}<br>${plain(data.y[y])}: ${short(c.y[y])}` +
          (c.se[y] === null ? "" : ` \u00b1 ${short(c.se[y])}`) + `<br>${plain(data.x[x])}: ${count(c.x[x])}<br>${count(c.params)} parameters, ${c.n} seed${c.n > 1 ? "s" : ""}` + beside(c)),
        hovertemplate: "%{text}<extra></extra>",
      });
    }
    // A mark stands outside the largest marker of its place, on white: other markers and bars may lie beneath it.
    const radius = (cell) => (8 + 14 * Math.sqrt((cell.params || 0) / (largest || 1))) / 2;
    const annotations = crowds.map((g) => {
      const beside = 0.71 * Math.max(...g.cells.map(radius)) + 2, [px, py] = [g.cells[0].x[x], g.cells[0].y[y]];
      return { x: log ? Math.log10(px) : px, y: py, text: `\u00d7${g.cells.length}`, showarrow: false, captureevents: false,
        xanchor: "left", yanchor: "top", xshift: beside, yshift: -beside, bgcolor: "rgba(255,255,255,0.85)", borderpad: 1, font: { size: 12, color: "#111" } };
    });
    // Hidden bands must not stretch the axis.
    const seen = cells.flatMap((c) => [c.y[y] - (c.se[y] ?? 0), c.y[y] + (c.se[y] ?? 0)]).concat(main.runs() ? cells.flatMap((c) => c.runs[y]) : [],
      main.lines() ? data.lines.filter((l) => l.protocol === protocol && l.x_axis === x && l.y_axis === y && l.architecture === data.reference).flatMap((l) => [...l.low, ...l.high]) : []).filter((v) => v !== null);
    const low = Math.min(...seen), high = Math.max(...seen), rim = 0.05 * (high - low) || 1;
    show("plot-main", traces, layout({
      annotations, height: Math.min(560, Math.max(380, window.innerWidth * 0.6)),
      xaxis: axis(wrap(data.x[x]), log ? { type: "log", dtick: 1, exponentformat: "power" } : { autorange: x === "upstream_nll" ? "reversed" : true }),
      yaxis: axis(wrap(data.y[y]), seen.length ? { range: [low - rim, high + rim] } : {}),
    }));
    const banded = data.lines.some((l) => l.x_axis === x && l.y_axis === y && l.low.every((v) => v !== null));
    byId("note-main").textContent = (cells.length ? "" : `No visible cell has both values${why(y === "upstream_nll" ? x : y)}. `) + "Marker size grows with parameters. " +
      (data.bars[y] ? data.bars[y] + " " : "") +
      (!main.lines() || x === "upstream_nll" ? "" : banded ? `Band: ${data.level * 100} % for the line of ${data.reference}, and of the architecture you point at. ` : "No bands: too few sizes. ") +
      (front.length ? "The dotted frontier is that of the visible cells. " : "") +
      (crowds.length ? "\u00d72: so many cells lie at one place; point at them for their names." : "");
  }

  // ---- slopes ---------------------------------------------------------------------------------------------------
  const unique = (rows, key) => [...new Set(rows.map((r) => r[key]))];
  const slopes = {
    alpha: select("controls-slopes", "Slope", unique(data.slopes, "alpha").map((a) => [a, words(a)]), drawSlopes),
    link: select("controls-slopes", "Form", unique(data.slopes, "link").map((l) => [l, l]), drawSlopes),
  };
  function drawSlopes() {
    const rows = data.slopes.filter((r) => r.alpha === slopes.alpha() && r.link === slopes.link() && shown.has(r.architecture) && r.slope !== null);
    rows.sort((a, b) => a.slope - b.slope);
    const reference = rows.find((r) => r.architecture === data.reference);
    const traces = rows.map((r) => {
      const look = data.looks[r.architecture], known = r.ci_low !== null && r.ci_high !== null;
      return {
        x: [r.slope], y: [plain(r.architecture)], mode: "markers", marker: { color: look.color, symbol: symbol(look), size: 11 },
        error_x: known ? { type: "data", symmetric: false, array: [r.ci_high - r.slope], arrayminus: [r.slope - r.ci_low], color: look.color, thickness: 2, width: 5 } : undefined,
        text: [`${plain(r.architecture)}: ${short(r.slope)}` + (known ? ` [${short(r.ci_low)}, ${short(r.ci_high)}]` : `<br>${plain(r.note)}`) + `<br>${r.n_sizes} sizes`],
        hovertemplate: "%{text}<extra></extra>",
      };
    });
    const shapes = reference ? [{ type: "line", x0: reference.slope, x1: reference.slope, yref: "paper", y0: 0, y1: 1, line: { color: "#999", width: 1, dash: "dot" } }] : [];
    const first = rows[0] || { x_axis: "", y_axis: "" };
    show("plot-slopes", traces, layout({
      height: 130 + 30 * rows.length, shapes, margin: { l: window.innerWidth < 600 ? 60 : 110, r: 16, t: 12, b: 56 },
      xaxis: axis(wrap(`slope of ${words(first.y_axis)} on ${words(first.x_axis)}`)), yaxis: axis("", { type: "category", range: [-0.6, rows.length - 0.4], tickvals: rows.map((r) => plain(r.architecture)), ticktext: rows.map((r) => plain(cut(r.architecture))) }),
    }));
    const bare = rows.filter((r) => r.ci_low === null);
    byId("note-slopes").textContent = !rows.length ? `No visible architecture has this slope${why(slopes.alpha())}.` : (reference ? `Dotted: ${data.reference}. ` : "") +
      (bare.length ? `${bare.length} of ${rows.length} have no interval: ${unique(bare, "note").join("; ")}.` : `Bars: ${data.level * 100} % intervals.`);
  }

  // ---- learning curves ------------------------------------------------------------------------------------------
  const scoreOf = (key) => key.startsWith("score:") ? key.slice(6) : null;
  const curves = byId("plot-curves") && {
    what: select("controls-curves", "Show", Object.entries(data.curves.kinds), drawCurves),
    x: select("controls-curves", "Against", [["tokens", "tokens"], ["steps", "steps"]], drawCurves),
    size: select("controls-curves", "Size", [["", "all sizes"], ...data.curves.sizes.map((n) => [n, n])], drawCurves),
    protocol: select("controls-curves", "Protocol", data.protocols.map((p) => [p, p || "plain sizes"]), drawCurves),
    log: check("controls-curves", "logarithmic", false, drawCurves),
  };
  function drawCurves() {
    const what = curves.what(), downstream = scoreOf(what) !== null, size = curves.size();
    const axisName = downstream ? "steps" : curves.x();
    const runs = data.curves.runs.filter((r) => r.protocol === curves.protocol() && (!size || r.size === size) && shown.has(r.architecture) && r.curves[what]);
    const traces = names.filter((n) => shown.has(n)).map((name) => {
      const trace = { x: [], y: [], text: [], mode: "lines+markers", name: plain(name), line: { color: data.looks[name].color, width: 1.2, dash: data.looks[name].filled ? "solid" : "dash" },
        marker: { color: data.looks[name].color, symbol: symbol(data.looks[name]), size: 4 }, hovertemplate: `%{text}<br>%{x:.4g} ${axisName}: %{y:.4g}<extra></extra>` };
      for (const run of runs.filter((r) => r.architecture === name)) {
        const one = run.curves[what];
        trace.x.push(...one[axisName], null); trace.y.push(...one.values, null);
        trace.text.push(...one.values.map(() => plain(run.run)), "");  // the gap keeps one run's line from the next
      }
      return trace;
    }).filter((t) => t.x.length);
    show("plot-curves", traces, layout({
      height: 420, xaxis: axis(downstream ? "steps of fine-tuning" : axisName === "tokens" ? "tokens of pretraining" : "steps of pretraining", curves.log() ? { type: "log", exponentformat: "power" } : {}),
      yaxis: axis(wrap(data.curves.kinds[what] + (downstream ? " (percent)" : " (nats per target token)"))),
    }));
    const single = runs.every((r) => r.curves[what].values.length < 2);
    byId("note-curves").textContent = !runs.length ? "No visible run has this curve." :
      `${runs.length} runs. ` + (single ? "Each was evaluated once: there are points, but no curves. " : "") + `Long curves are thinned to ${data.curves.most} points; their last point is kept.`;
  }

  // ---- chance of being best, and depth by width -----------------------------------------------------------------
  const best = byId("plot-best") && { y: select("controls-best", "Quality", unique(data.best, "y_axis").map((y) => [y, words(y)]), drawBest) };
  function drawBest() {
    const rows = data.best.filter((r) => r.y_axis === best.y()), known = rows.some((r) => r.probability_best !== null);
    byId("plot-best").hidden = !known;
    byId("note-best").textContent = known ? "Chance of being the best at a budget when the seeds are drawn again; only architectures that cover the budget take part."
      : rows.length ? "With one seed per cell the chance of being best at a budget is unknown." : "No two architectures cover one budget.";
    if (!known) return;
    const budgets = unique(rows, "budget").sort((a, b) => a - b);
    const traces = names.filter((n) => shown.has(n)).map((name) => {
      const own = new Map(rows.filter((r) => r.architecture === name).map((r) => [r.budget, r.probability_best]));
      return {
        type: "bar", name: plain(name), x: budgets.map(count), y: budgets.map((b) => own.get(b) ?? 0),
        marker: { color: data.looks[name].color, pattern: { shape: data.looks[name].filled ? "" : "/" } },
        hovertemplate: `${plain(name)} at %{x}: %{y:.0%}<extra></extra>`,
      };
    }).filter((t) => t.y.some((v) => v > 0.005));
    show("plot-best", traces, layout({
      height: 340, barmode: "stack", showlegend: true, xaxis: axis("budget (FLOPs)", { type: "category" }), yaxis: axis("probability of being best", { tickformat: ".0%", range: [0, 1] }),
    }));
  }

  const grid = byId("plot-grid") && {
    name: select("controls-grid", "Architecture", unique(data.grid, "architecture").map((n) => [n, n]), drawGrid),
    y: select("controls-grid", "Quality", unique(data.grid, "y_axis").map((y) => [y, words(y)]), drawGrid),
  };
  function drawGrid() {
    const rows = data.grid.filter((r) => r.architecture === grid.name() && r.y_axis === grid.y());
    byId("plot-grid").hidden = !rows.length;
    if (!rows.length) { byId("note-grid").textContent = "No cell states both its depth and its width."; return; }
    const sorted = (key) => unique(rows, key).sort((a, b) => a - b), depths = sorted("depth"), widths = sorted("width");
    const z = depths.map((d) => widths.map((w) => rows.find((r) => r.depth === d && r.width === w)?.quality ?? null));
    show("plot-grid", [{
      type: "heatmap", x: widths.map(String), y: depths.map(String), z, colorscale: "Viridis", colorbar: { title: { text: plain(words(rows[0].y_axis)), side: "right" } },
      texttemplate: "%{z:.3g}", hovertemplate: "depth %{y}, width %{x}: %{z:.4g}<extra></extra>",
    }], layout({ height: 360, xaxis: axis("width", { type: "category" }), yaxis: axis("depth (layers)", { type: "category" }) }));
  }

  // ---- attainment, and the scaling laws -------------------------------------------------------------------------
  const attained = byId("plot-attainment") && { y: select("controls-attainment", "Quality", unique(data.attainment, "y_axis").map((y) => [y, words(y)]), drawAttainment) };
  function drawAttainment() {
    const rows = data.attainment.filter((r) => r.y_axis === attained.y()).sort((a, b) => a.level - b.level);
    byId("plot-attainment").hidden = !rows.length;
    byId("note-attainment").textContent = !rows.length ? "No run has both a cost and a quality."
      : rows[0].repetitions > 1 ? `${rows[0].repetitions} repetitions of the study: the s-th run of every cell.` : "One repetition: the surfaces are one and the same.";
    if (!rows.length) return;
    const traces = rows.map((r, i) => ({
      x: r.x, y: r.y, mode: "lines", name: `${r.level * 100} % of the repetitions`, line: { color: "#0072B2", shape: "hv", width: 1.6, dash: ["dot", "solid", "dash"][i % 3] },
      hovertemplate: `attained by ${r.level * 100} %: %{y:.4g} at %{x:.3g}<extra></extra>`,
    }));
    show("plot-attainment", traces, layout({
      height: 360, showlegend: true, xaxis: axis(wrap(Object.values(data.x)[0]), { type: "log", dtick: 1, exponentformat: "power" }), yaxis: axis(wrap(words(rows[0].y_axis))),
    }));
  }

  const law = byId("plot-law") && {
    name: select("controls-law", "Architecture", Object.keys(data.laws).map((n) => [n, n]), drawLaw),
    view: select("controls-law", "Show", [["curves", "curve and band"], ["residuals", "residuals"], ["isoflops", "isoFLOP profiles"], ["starts", "starts"]], drawLaw),
  };
  const views = {
    curves: (one, color) => [...one.curves.flatMap((c) => [
      ...(c.lower.every((v) => v !== null) ? [{ x: [...c.x, ...[...c.x].reverse()], y: [...c.upper, ...[...c.lower].reverse()], fill: "toself", fillcolor: color + "1f", line: { width: 0 }, mode: "lines", hoverinfo: "skip" }] : []),
      { x: c.x, y: c.prediction, mode: "lines", line: { color, width: 1.4 }, hovertemplate: (c.series === null ? "" : `at ${count(c.series)}: `) + "%{y:.4g}<extra></extra>" },
    ]), { x: one.points.x, y: one.points.y, mode: "markers", marker: { color, size: 9 }, hovertemplate: "%{x:.3g}: %{y:.4g}<extra></extra>" }],
    residuals: (one, color) => [{ x: one.points.prediction, y: one.points.residual.map((r) => 100 * r), mode: "markers", marker: { color, size: 9 }, hovertemplate: "predicted %{x:.4g}: %{y:.2g} %<extra></extra>" }],
    isoflops: (one, color) => one.isoflops.map((c) => ({ x: c.x, y: c.prediction, mode: "lines", line: { color }, hovertemplate: `${count(c.series)} FLOPs, %{x:.3g}: %{y:.4g}<extra></extra>` })),
    starts: (one, color) => [{ x: one.starts.map((_, i) => i + 1), y: one.starts, mode: "lines", line: { color, shape: "hvh" }, hovertemplate: "start %{x}: %{y:.4g}<extra></extra>" }],
  };
  const lawAxes = {
    curves: (one) => [axis(one.input, { type: "log", exponentformat: "power" }), axis("loss (nats)")],
    residuals: () => [axis("predicted loss (nats)"), axis("residual (percent)", { zeroline: true })],
    isoflops: () => [axis("parameters", { type: "log", exponentformat: "power" }), axis("loss (nats)")],
    starts: () => [axis("starts, best first"), axis("objective", { type: "log", exponentformat: "power" })],
  };
  function drawLaw() {
    const one = data.laws[law.name()], view = law.view(), traces = views[view](one, data.looks[law.name()].color);
    byId("plot-law").hidden = !traces.length;
    byId("note-law").textContent = (one.warnings.length ? `WARNING: ${one.warnings.join("; ")}. ` : "") + one.title + ". " +
      (traces.length ? "" : "This form has no isoFLOP profile: tokens do not vary. ") + `${Math.round(100 * one.agreed)} % of the starts agree.`;
    if (!traces.length) return;
    const [xaxis, yaxis] = lawAxes[view](one);
    show("plot-law", traces, layout({ height: 380, xaxis, yaxis }));
  }

  // ---- tables ---------------------------------------------------------------------------------------------------
  function sortBy(head) {
    const table = head.closest("table"), body = table.tBodies[0], column = head.cellIndex;
    const up = head.getAttribute("aria-sort") !== "ascending", numeric = head.classList.contains("n");
    for (const other of table.querySelectorAll("th")) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => numeric ? parseFloat(row.cells[column].dataset.value) : row.cells[column].dataset.value;
    const missing = (value) => numeric ? Number.isNaN(value) : value === "";
    const rows = [...body.rows].map((row) => [key(row), row]).sort(([a], [b]) => {
      if (missing(a) || missing(b)) return missing(a) - missing(b);  // unknown values stay last, whichever way
      const order = numeric ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
      return up ? order : -order;
    });
    for (const [, row] of rows) { row.classList.remove("first"); body.append(row); }
  }
  for (const head of document.querySelectorAll("th")) head.firstElementChild.addEventListener("click", () => sortBy(head));

  // A table that is wider than its place is shown a few whole columns at a time; those that name the row always.
  const first = new WeakMap();  // the first free column that each wide table shows
  function columnsOf(table, visible) {
    for (const row of table.rows) for (const cell of row.cells) cell.hidden = !visible(cell.cellIndex);
  }
  function fit(figure) {
    const box = figure.querySelector(".scroll"), pager = figure.querySelector(".pager");
    if (!box || !box.clientWidth) return;  // folded: measured when it is opened
    const table = box.firstElementChild, heads = [...table.tHead.rows[0].cells], fixed = Number(table.dataset.fixed);
    if (heads.some((head) => head.hidden)) columnsOf(table, () => true);
    const widths = heads.map((head) => head.offsetWidth), room = box.clientWidth;
    let left = 0;
    widths.slice(0, fixed).forEach((width, i) => { table.style.setProperty(`--left-${i}`, `${left}px`); left += width; });
    pager.hidden = table.scrollWidth <= room;
    if (pager.hidden) return;
    const pages = [];
    let used = Infinity;
    for (let i = fixed; i < heads.length; i++) {
      if (used + widths[i] > room) { pages.push([]); used = left; }
      pages.at(-1).push(i);
      used += widths[i];
    }
    let at = Math.max(0, pages.findIndex((page) => page.includes(first.get(table) ?? fixed)));
    const [back, text, on] = pager.children;
    const turn = (step) => {
      at += step;
      const page = pages[at];
      first.set(table, page[0]);
      columnsOf(table, (i) => i < fixed || page.includes(i));
      text.textContent = `columns ${page[0] - fixed + 1} to ${page.at(-1) - fixed + 1} of ${heads.length - fixed}`;
      back.disabled = at === 0; on.disabled = at === pages.length - 1;
    };
    back.onclick = () => turn(-1); on.onclick = () => turn(1);
    turn(0);
  }
  const fitAll = () => document.querySelectorAll("figure.grid").forEach(fit);
  for (const folded of document.querySelectorAll("details")) folded.addEventListener("toggle", () => folded.querySelectorAll("figure.grid").forEach(fit));
  let waiting = 0;
  window.addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(() => { draw(); fitAll(); }, 80); });

  // ---- toggles --------------------------------------------------------------------------------------------------
  function draw() {
    drawMain(); drawSlopes();
    if (curves) drawCurves();
    if (best) drawBest();
    if (attained) drawAttainment();
    if (grid) drawGrid();
    if (law) drawLaw();
  }
  function toggle() {
    shown.clear();
    for (const input of byId("toggles").querySelectorAll("input:checked")) shown.add(input.value);
    for (const row of document.querySelectorAll("tr[data-architecture]")) row.hidden = !shown.has(row.dataset.architecture);
    for (const note of document.querySelectorAll(".filtered")) note.hidden = [...note.closest("figure").querySelectorAll("tbody tr")].some((row) => !row.hidden);
    draw();
  }
  byId("toggles").addEventListener("change", toggle);
  for (const [id, on] of [["all", true], ["none", false]]) byId(id).addEventListener("click", () => {
    for (const input of byId("toggles").querySelectorAll("input")) input.checked = on;
    toggle();
  });
  // A browser may restore the boxes of an earlier visit; paper is narrower than the window.
  window.addEventListener("pageshow", toggle);
  const widths = (width) => { for (const plot of document.querySelectorAll(".plot.js-plotly-plot")) Plotly.relayout(plot, { width }); };
  window.addEventListener("beforeprint", () => {
    widths(980);
    for (const table of document.querySelectorAll(".scroll > table")) columnsOf(table, () => true);
  });
  window.addEventListener("afterprint", () => { draw(); fitAll(); });
  draw();
  fitAll();
  byId("plot-main").on("plotly_hover", (event) => point(names.find((n) => plain(n) === event.points[0].data.name)));
  byId("plot-main").on("plotly_unhover", () => point(""));
})();
