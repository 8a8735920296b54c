// Nodes and edges, laid out by layer; the strongest edges alone where there are many.

const FEW_EDGES = 300;
let edgesShown = 80;

function partsOf(reader) {
  const found = /^(.*)<([qkv])>$/.exec(reader);
  return found ? [found[1], { q: "query", k: "key", v: "value" }[found[2]]] : [reader, ""];
}

const attributed = (evidence?.edges ?? []).map(([writer, name, value]) => ({ writer, reader: partsOf(name)[0], by: partsOf(name)[1], value }));
const own = data.edges.map(([writer, name, kept, value, first]) => ({ writer, reader: partsOf(name)[0], by: partsOf(name)[1], value, found: kept === 1, first }));

function inNow(id) {
  return id === "input" || id === "logits" || keptNow(parse(id));
}

// Edges with `kept`, whether both ends, or in a circuit of edges the edge, are in at the size.
function edgesNow() {
  const within = (edge) => (state.step === null || edge.first === null ? edge.found : edge.first <= state.step);
  if (own.length) {
    const known = new Map(attributed.map((edge) => [`${edge.writer} ${edge.reader} ${edge.by}`, edge.value]));
    return own.map((edge) => ({ ...edge, kept: within(edge), value: known.get(`${edge.writer} ${edge.reader} ${edge.by}`) ?? edge.value }));
  }
  if (attributed.length) return attributed.map((edge) => ({ ...edge, kept: inNow(edge.writer) && inNow(edge.reader) }));
  return edgesBetween(["input", ...NODES.filter(keptNow).map((node) => node.id), "logits"]);
}

// All that kept nodes can read of each other: heads what stands before their layer, an MLP its layer's heads, too.
function edgesBetween(ids) {
  const found = [];
  for (const reader of ids) {
    for (const writer of ids) {
      const apart = Math.floor(rowOf(writer) / 2) < Math.floor(rowOf(reader) / 2);
      const beside = !shape.parallel && rowOf(writer) === rowOf(reader) - 1 && rowOf(reader) % 2 === 1;
      if (writer !== reader && (apart || beside)) found.push({ writer, reader, by: "", value: null, kept: true });
    }
  }
  return found;
}

function drawGraph() {
  whenSettled(["step"], refreshGraph);
  whenChanged(["shade", "notes"], refreshGraph);
  whenChanged(["node"], chooseInGraph);
  refreshGraph();
}

function refreshGraph() {
  const all = edgesNow().filter((edge) => edge.kept);
  const valued = all.some((edge) => edge.value !== null);
  all.sort((a, b) => Math.abs(b.value ?? 0) - Math.abs(a.value ?? 0));
  const most = Math.min(all.length, 500);
  edgesShown = Math.min(Math.max(edgesShown, 1), most);
  const slider = make("input", { type: "range", id: "edges-shown", min: 1, max: Math.max(most, 1), value: edgesShown, on: { input: (event) => { edgesShown = Number(event.target.value); told.textContent = toldOf(); drawing.replaceChildren(graphOf(all.slice(0, edgesShown))); } } });
  // Of a large circuit the page carries the strongest alone, and attributions of the circuit as found alone.
  const total = state.step === null || !data.steps ? data.kept_edges : data.steps.edges[state.step];
  const rest = total <= all.length ? "" : state.step === null ? ` (the strongest of ${count(total)})` : ` (${count(total)} at this size; the others are not in this page)`;
  const toldOf = () => `${count(edgesShown)} of ${count(all.length)} edges between kept nodes${rest}`;
  const told = make("output", { for: "edges-shown" }, toldOf());
  const drawing = make("div");
  const tooMany = !valued && all.length > FEW_EDGES;
  drawing.append(graphOf(tooMany ? [] : all.slice(0, edgesShown)));
  const why = valued ? `The thicker, the stronger${attributed.length ? ` (attribution to the score, mean over ${count(evidence.edge_prompts)} prompts)` : " (score of its method)"}. ` : "";
  put("graph",
    valued && most > 1 ? make("div", { class: "row" }, make("label", { for: "edges-shown" }, "Strongest edges"), make("div", { style: { width: "min(22rem, 60vw)" } }, slider), told) : null,
    tooMany ? make("p", { class: "soft" }, `${count(all.length)} pairs of kept nodes write and read, and nothing here tells which matter; those of the chosen node are drawn.`) : null,
    make("p", { class: "soft" }, `${why}The input is below, the logits above. A click on a node shows it and its edges.`),
    wide("Graph of nodes and edges", drawing, "graph"));
}

function graphOf(edges) {
  const chosen = parse(state.node ?? "")?.node;
  if (!edges.length) {
    const near = edgesNow().filter((edge) => edge.kept && (edge.writer === chosen || edge.reader === chosen));
    edges = near.slice(0, FEW_EDGES);
  }
  const ids = [...new Set(["input", "logits", ...edges.flatMap((edge) => [edge.writer, edge.reader]), ...(edges.length ? [] : NODES.filter(keptNow).map((node) => node.id))])];
  const { places, heights, width, height } = laidOut(ids, edges, Math.min(900, document.getElementById("graph").clientWidth || 900));
  const chart = svg(width, height, `${edges.length} edges between ${ids.length} nodes`).attr("role", "group");
  for (const [row, y] of heights) {
    const within = row >= 0 && row < 2 * shape.layers, below = row % 2 === 0 || !heights.has(row - 1);
    if (within && below) chart.append("text").attr("class", "soft").attr("x", 2).attr("y", y + 4).text(`layer ${Math.floor(row / 2)}`);
  }
  const strongest = d3.max(edges, (edge) => Math.abs(edge.value ?? 0)) || 1;
  const lines = chart.append("g");
  edges.forEach((edge, i) => {
    const span = Math.abs(rowOf(edge.reader) - rowOf(edge.writer));
    const across = span > 1 ? (i % 2 ? 1 : -1) * Math.min(110, 12 + 7 * span) : 0;
    const sign = edge.value === null || own.length && !attributed.length ? "" : edge.value > 0 ? "helps" : "hurts";
    lines.append("path").attr("class", `edge ${sign}`).attr("d", edgePath(places.get(edge.writer), places.get(edge.reader), across))
      .attr("stroke-width", edge.value === null ? 1 : 0.7 + 4 * Math.sqrt(Math.abs(edge.value) / strongest))
      .attr("data-writer", edge.writer).attr("data-reader", edge.reader)
      .append("title").text(`${edge.writer} → ${edge.reader}${edge.by ? ` as ${edge.by}` : ""}${edge.value === null ? "" : `: ${number(edge.value)}`}`);
  });
  for (const id of ids) chart.append(() => graphNode(id, places.get(id)));
  return litUp(chart.node());
}

function graphNode(id, [x, y]) {
  const act = () => change({ node: id });
  const group = d3.create("svg:g").attr("class", "node").attr("transform", `translate(${x},${y})`).attr("role", "button").attr("tabindex", 0).attr("data-node", id)
    .attr("aria-label", parse(id) ? describe(parse(id)) : id)
    .on("click", act).on("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); act(); } });
  group.append("rect").attr("x", -NODE_SIZE.width / 2).attr("y", -NODE_SIZE.height / 2).attr("width", NODE_SIZE.width).attr("height", NODE_SIZE.height).attr("rx", 4);
  group.append("text").attr("text-anchor", "middle").attr("y", 4).text(id);
  const note = state.notes[id];
  if (note?.label) group.append("text").attr("class", "soft").attr("text-anchor", "middle").attr("y", -12).text(clipped(note.label, 16));
  if (parse(id)) paint(group.node(), parse(id));
  return group.node();
}

// What touches the chosen node stands out.
function litUp(chart) {
  const chosen = parse(state.node ?? "")?.node ?? state.node;
  const there = chosen && chart.querySelector(`[data-node="${CSS.escape(chosen)}"]`);
  for (const node of chart.querySelectorAll(".node")) node.classList.toggle("chosen", node.dataset.node === chosen);
  for (const edge of chart.querySelectorAll(".edge")) {
    const touches = edge.dataset.writer === chosen || edge.dataset.reader === chosen;
    edge.classList.toggle("lit", Boolean(there) && touches);
    edge.classList.toggle("dim", Boolean(there) && !touches);
  }
  return chart;
}

function chooseInGraph() {
  const chart = document.querySelector("#graph svg");
  const few = edgesNow().filter((edge) => edge.kept);
  if (!few.some((edge) => edge.value !== null) && few.length > FEW_EDGES) refreshGraph();
  else if (chart) litUp(chart);
}
