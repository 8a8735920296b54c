// Other circuits of the same model: figures, curves, grids and what they have in common.

function drawCompare() {
  if (!data.others.length) {
    document.getElementById("compare-part").hidden = true;
    return;
  }
  const all = [data, ...data.others];
  const lines = all.map((each) => ({ name: nameOf(each), points: curvePoints(each.curve) })).filter((line) => line.points.length);
  const colours = lines.length > 1 ? make("p", { class: "row soft" }, ...lines.map((line, i) =>
    make("span", {}, make("span", { class: "key", style: { background: i ? d3.schemeTableau10[i % 10] : "var(--helps)" } }), line.name))) : null;
  put("compare", figureTable(all), colours, lines.length > 1 ? curveChart(lines).element : null,
    heading("Heads and MLPs"),
    make("p", { class: "row soft" }, ...Object.entries(IN_BOTH).map(([kind, [text, colour]]) =>
      make("span", { "data-kind": kind }, make("span", { class: "key", style: { background: colour } }), text))),
    make("div", { class: "charts" }, ...data.others.map(overlapGrid)), heading("In common"), overlapTable());
}

function nameOf({ title }) {
  return `${title.name} (${title.method ?? "?"})`;
}

function figureTable(all) {
  const columns = [["KL, nats", (r) => r.circuit?.kl], ["score", (r) => r.circuit?.score], ["accuracy", (r) => r.circuit?.accuracy],
    ["parameters kept, %", (r) => (r.parameters ? 100 * r.parameters.prunable_kept : null)], ["heads", (r) => r.sizes?.attention_heads?.active],
    ["MLPs", (r) => r.sizes?.mlp_blocks?.active], ["edges", (r) => r.edges?.active], ["search, s", (r) => r.training?.seconds]];
  const head = make("tr", {}, make("th", { scope: "col" }, "circuit"), ...columns.map(([name]) => make("th", { scope: "col", class: "number" }, name)));
  const rows = all.map((each) => make("tr", {}, make("th", { scope: "row", dir: "auto" }, nameOf(each)), ...columns.map(([, of]) => {
    const value = of(each.results) ?? null;
    return make("td", { class: "number" }, Number.isInteger(value) ? count(value) : number(value));
  })));
  return wide("Figures of the circuits", make("table", { class: "plain" }, make("thead", {}, head), make("tbody", {}, ...rows)));
}

const IN_BOTH = { both: ["in both", "var(--ink)"], ours: ["in this circuit alone", "var(--helps)"], theirs: ["in the other alone", "var(--hurts)"] };

function overlapGrid(other) {
  const theirs = Object.fromEntries(["attention_heads", "mlp_blocks"].map((name) => [name, bytesOf(other.kept[name])]));
  const side = Math.max(5, Math.min(14, Math.floor(260 / Math.max(shape.heads, shape.layers)))), left = 24, top = 4;
  const chart = svg(left + (shape.heads + 1.6) * side + 4, top + shape.layers * side + 16, `Heads and MLPs of ${nameOf(other)} and of this circuit`);
  for (const node of NODES) {
    const ours = isKept(node.granularity, node.at), there = Boolean((theirs[node.granularity][node.at >> 3] >> (node.at & 7)) & 1);
    const kind = ours && there ? "both" : ours ? "ours" : there ? "theirs" : null;
    const column = node.head ?? shape.heads + 0.6;
    chart.append("rect").attr("x", left + column * side).attr("y", top + (shape.layers - 1 - node.layer) * side).attr("width", side - 1).attr("height", side - 1)
      .style("fill", kind ? IN_BOTH[kind][1] : "var(--wash)").append("title").text(`${node.id}: ${kind ? IN_BOTH[kind][0] : "in neither"}`);
  }
  for (const layer of d3.range(0, shape.layers, Math.ceil(shape.layers / 8))) {
    chart.append("text").attr("class", "soft").attr("x", left - 4).attr("y", top + (shape.layers - layer) * side - 1).attr("text-anchor", "end").text(layer);
  }
  chart.append("text").attr("class", "soft").attr("x", left).attr("y", top + shape.layers * side + 12).text("heads");
  chart.append("text").attr("class", "soft").attr("x", left + (shape.heads + 1.6) * side).attr("y", top + shape.layers * side + 12).attr("text-anchor", "end").text("MLP");
  return make("div", { class: "chart" }, make("div", { class: "chart-title", dir: "auto" }, nameOf(other)), chart.node());
}

function overlapTable() {
  const kinds = [...Object.keys(data.granularities), "edges"];
  const head = make("tr", {}, make("th", { scope: "col" }, "circuit"), ...kinds.map((kind) => make("th", { scope: "col", class: "number" }, inSentence(data.granularities[kind] ?? "Edges"))));
  const rows = data.others.map((other) => make("tr", {}, make("th", { scope: "row", dir: "auto" }, nameOf(other)), ...kinds.map((kind) => {
    const [ours, theirs, both] = other.overlap[kind], either = ours + theirs - both;
    return make("td", { class: "number", title: `${count(both)} in both, ${count(ours)} here, ${count(theirs)} there` },
      either ? (both / either).toFixed(2) : "–", make("small", {}, ` ${count(both)}`));
  })));
  return make("div", {}, make("p", { class: "soft" }, "In both over in either (Jaccard), and how many are in both."),
    wide("Overlap of the circuits", make("table", { class: "plain" }, make("thead", {}, head), make("tbody", {}, ...rows))));
}
