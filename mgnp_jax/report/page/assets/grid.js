// Layers by heads, with each layer's MLP and the neurons kept; the last layer stands above.

const cells = new Map();
const strips = [];

function drawGrid() {
  const withStrips = data.level === "node";
  const heads = d3.range(shape.heads);
  const top = make("tr", { role: "row" }, make("th", { scope: "col", role: "columnheader" }, "layer"),
    ...heads.map((head) => make("th", { scope: "col", role: "columnheader" }, `h${head}`)),
    withStrips ? make("th", { scope: "col", role: "columnheader" }, "attn neurons") : null,
    make("th", { scope: "col", role: "columnheader" }, "MLP"),
    ...(withStrips ? ["hidden", "output"].map((name) => make("th", { scope: "col", role: "columnheader" }, name)) : []));
  const rows = d3.range(shape.layers).reverse().map((layer) => gridRow(layer, heads, withStrips));
  const table = make("table", { class: "grid", role: "grid", "aria-labelledby": "grid-title", on: { keydown: moveInGrid, click: clickInGrid, pointerover: tellInGrid } },
    make("thead", { role: "rowgroup" }, top), make("tbody", { role: "rowgroup" }, ...rows));
  put("grid", shadeChooser(), make("div", { class: "wide" }, table), shadeKey());
  whenChanged(["step", "shade", "notes"], refreshGrid);
  whenChanged(["node"], chooseInGrid);
  refreshGrid();
  chooseInGrid();
}

function gridRow(layer, heads, withStrips) {
  const strip = (name, parents) => {
    const bar = make("i"), text = make("span");
    const place = make("td", { class: "strip", role: "gridcell" }, make("div", {}, bar), text);
    strips.push({ name, parents, bar, text });
    return place;
  };
  return make("tr", { role: "row" }, make("th", { scope: "row", role: "rowheader" }, `${layer}`),
    ...heads.map((head) => gridCell(parse(`a${layer}.h${head}`))),
    withStrips ? strip("attention_neurons", heads.map((head) => layer * shape.heads + head)) : null,
    gridCell(parse(`m${layer}`)),
    ...(withStrips ? [strip("mlp_hidden", [layer]), strip("mlp_output", [layer])] : []));
}

function gridCell(node) {
  const line = make("i"), text = document.createTextNode("");
  const cell = make("td", { class: "cell", role: "gridcell", tabindex: -1, "data-node": node.id }, text, line);
  cells.set(node.id, { node, cell, text, line });
  return cell;
}

function refreshGrid() {
  const shade = shadeNow();
  for (const entry of cells.values()) refreshCell(entry, shade);
  for (const { name, parents, bar, text } of strips) {
    const kept = d3.sum(parents, (parent) => neuronsNow(name, parent)), all = parents.length * perParent[name];
    const told = `${count(kept)}/${count(all)}`;
    if (text.textContent === told) continue;
    bar.style.width = `${(100 * kept) / all}%`;
    text.textContent = told;
  }
}

// Most cells are as they were a step before, and are left alone.
function refreshCell(entry, shade) {
  const { node, cell, text, line } = entry;
  const kept = keptNow(node), name = KINDS_WITHIN[node.granularity][0], note = state.notes[node.id];
  const within = KINDS_WITHIN[node.granularity].map((each) => neuronsNow(each, node.at));
  const drawn = [kept, ...within, shade.name, note ? note.label : null].join();
  if (entry.drawn === drawn) return;
  entry.drawn = drawn;
  cell.classList.toggle("kept", kept);
  cell.classList.toggle("out", !kept);
  cell.classList.toggle("pinned", Boolean(note));
  paint(cell, node, shade);
  text.data = textOf(node, shade);
  line.style.width = kept && data.level === "node" ? `${(100 * within[0]) / perParent[name]}%` : "0";
  const value = shade.of(node);
  const told = value === null || shade.name === "kept" ? "" : `; ${shade.label}: ${shade.text ? shade.text(node) : number(value)}`;
  cell.setAttribute("aria-label", describe(node) + told + (note?.label ? `; ${note.label}` : ""));
}

function chooseInGrid() {
  const chosen = parse(state.node ?? "")?.node;
  for (const [id, { cell }] of cells) {
    cell.classList.toggle("chosen", id === chosen);
    cell.setAttribute("aria-selected", id === chosen ? "true" : "false");
    cell.tabIndex = -1;
  }
  (cells.get(chosen) ?? cells.get("a0.h0")).cell.tabIndex = 0;
}

function clickInGrid(event) {
  const cell = event.target.closest(".cell");
  if (cell) { change({ node: cell.dataset.node }); cell.focus(); }
}

function tellInGrid(event) {
  const cell = event.target.closest(".cell");
  if (cell) cell.title = cell.getAttribute("aria-label");
}

const MOVES = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [0, -1e6], End: [0, 1e6], PageUp: [1e6, 0], PageDown: [-1e6, 0] };

function moveInGrid(event) {
  const cell = event.target.closest(".cell");
  if (!cell) return;
  const node = cells.get(cell.dataset.node).node;
  if (event.key === "Enter" || event.key === " ") {
    change({ node: node.id });
    event.preventDefault();
  } else if (MOVES[event.key] && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const [up, right] = MOVES[event.key];
    const clamp = (value, most) => Math.max(0, Math.min(most, value));
    const layer = clamp(node.layer + up, shape.layers - 1);
    // The MLP stands right of the last head.
    const column = clamp((node.head ?? shape.heads) + right, shape.heads);
    const id = column === shape.heads ? `m${layer}` : `a${layer}.h${column}`;
    change({ node: id });
    cells.get(id).cell.focus();
    event.preventDefault();
  }
}
