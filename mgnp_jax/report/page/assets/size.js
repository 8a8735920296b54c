// The slider over the circuits of a ranking, and what KL each size has.

function drawSize() {
  const steps = data.steps;
  if (!steps) {
    put("size", make("p", { class: "soft" }, `${data.title.method ?? "Its method"} ranks nothing, so this circuit has one size; node pruning without --no-nested and the methods that score nodes or edges rank.`), staticCurve());
    return;
  }
  const slider = make("input", {
    type: "range", id: "slider", min: 0, max: steps.kept.length - 1, step: 1, "aria-describedby": "size-told",
    on: { input: (event) => change({ step: Number(event.target.value) }) },
  });
  const told = make("output", { id: "size-told", for: "slider" });
  const found = button("As found", () => change({ step: null }), { id: "as-found" });
  const curve = curveChart();
  put("size", make("div", { class: "size-row" },
    make("div", {}, make("label", { for: "slider" }, "Size of the circuit"), slider, told), found), curve.element);
  const refresh = () => {
    const step = state.step ?? nearestStep();
    slider.value = String(step);
    const text = state.step === null
      ? `as found: ${count(data.kept_edges)} edges`
      : `${number(100 * steps.kept[step], 3)} % of the ${sizeUnit()}, ${count(steps.edges[step])} edges, ${count(headsAt(step))} heads`;
    told.textContent = text;
    slider.setAttribute("aria-valuetext", text);
    found.setAttribute("aria-pressed", state.step === null ? "true" : "false");
    curve.mark(state.step === null ? keptAsFound() : steps.kept[step]);
  };
  whenChanged(["step"], refresh);
  refresh();
}

function sizeUnit() {
  return data.level === "edge" ? "edges" : "prunable parameters";
}

function headsAt(step) {
  return data.steps.first.attention_heads.filter((first) => first <= step).length;
}

function keptAsFound() {
  const { results, steps } = data;
  if (results.parameters && data.level === "node") return results.parameters.prunable_kept;
  if (results.edges && data.level === "edge") return results.edges.active / results.edges.total;
  return steps ? steps.kept[nearestStep()] : null;
}

function nearestStep() {
  return d3.leastIndex(data.steps.edges, (a, b) => Math.abs(a - data.kept_edges) - Math.abs(b - data.kept_edges));
}

function curvePoints(rows) {
  const place = data.level === "edge" ? (row) => 1 - row.edge_sparsity / 100 : (row) => row.prunable_kept;
  return rows.map((row) => ({ x: place(row), y: row.kl })).filter((point) => point.x > 0 && Number.isFinite(point.y));
}

function staticCurve() {
  return data.curve.length ? curveChart().element : null;
}

// Lines of KL over size, both on scales of powers; `mark` moves the line at a size.
function curveChart(lines = [{ points: curvePoints(data.curve), name: "" }]) {
  const all = lines.flatMap((line) => line.points);
  const own = data.results.circuit && keptAsFound() ? [{ x: keptAsFound(), y: data.results.circuit.kl }] : [];
  if (!all.length) {
    const note = make("p", { class: "soft" }, "KL at other sizes was not measured: --curve-prompts measures it.");
    return { element: data.steps ? note : null, mark: () => {} };
  }
  const width = 460, height = 140, left = 52, right = 24, top = 18, bottom = 30;
  const chart = svg(width, height, `KL over size: ${all.map((p) => `${number(100 * p.x, 2)} %: ${number(p.y)}`).join(", ")}`);
  const least = 1e-5;
  const steps = data.steps ? [data.steps.kept[0], 1] : [];
  const x = d3.scaleLog().domain(d3.extent([...all.map((p) => p.x), ...own.map((p) => p.x), ...steps])).range([left, width - right]);
  const y = d3.scaleLog().domain(d3.extent([...all, ...own].map((p) => Math.max(p.y, least)))).nice().range([height - bottom, top]);
  chart.append("g").attr("transform", `translate(0,${height - bottom})`).call(d3.axisBottom(x).ticks(5, (v) => `${+(100 * v).toPrecision(2)} %`).tickSizeOuter(0));
  chart.append("g").attr("transform", `translate(${left},0)`).call(d3.axisLeft(y).ticks(4, onAxis).tickSizeOuter(0));
  chart.append("text").attr("class", "soft").attr("x", width - right).attr("y", height - 2).attr("text-anchor", "end").text(`kept of the ${sizeUnit()}`);
  chart.append("text").attr("class", "soft").attr("x", 2).attr("y", 11).text("KL, nats");
  const path = d3.line((p) => x(p.x), (p) => y(Math.max(p.y, least)));
  for (const [i, line] of lines.entries()) {
    const colour = i ? d3.schemeTableau10[i % 10] : "var(--helps)";
    chart.append("path").attr("d", path(line.points)).style("fill", "none").style("stroke", colour).attr("stroke-width", 1.6).append("title").text(line.name);
    chart.append("g").selectAll("circle").data(line.points).join("circle").attr("r", 2.4).style("fill", colour)
      .attr("cx", (p) => x(p.x)).attr("cy", (p) => y(Math.max(p.y, least))).append("title").text((p) => `${line.name} ${number(100 * p.x, 3)} %: KL ${number(p.y)}`);
  }
  chart.append("g").selectAll("path").data(own).join("path").attr("d", d3.symbol(d3.symbolStar, 60)())
    .attr("transform", (p) => `translate(${x(p.x)},${y(Math.max(p.y, least))})`).style("fill", "var(--ink)").append("title").text("as found");
  const line = chart.append("line").attr("y1", top).attr("y2", height - bottom).style("stroke", "var(--ink)").attr("stroke-dasharray", "3 2");
  const mark = (size) => line.attr("x1", x(size)).attr("x2", x(size));
  if (own.length) mark(own[0].x); else line.remove();
  return { element: chart.node(), mark };
}
