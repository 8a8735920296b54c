// Heads and MLPs with every figure by which nodes can be shaded, to be sorted.

const FEW_ROWS = 25;
let sortedBy = null, rising = false, everyRow = false;

const SHORT = {
  "removal-score": "removed: Δ score", "removal-kl": "removed: Δ KL", "addition-score": "alone: Δ score", "addition-kl": "alone: Δ KL",
  direct: "direct to answer", to_answer: "→ answer", to_wrong_answer: "→ wrong answer", to_repeated: "→ repeated", to_first: "→ first", to_previous: "→ previous",
  rank: "last in at size", votes: "votes",
};

function tableColumns() {
  return shades().filter((shade) => shade.name !== "kept").map((shade) => ({ ...shade, short: SHORT[shade.name] ?? shade.label }));
}

function drawTable() {
  const columns = tableColumns();
  if (!columns.length) {
    document.getElementById("table-part").hidden = true;
    return;
  }
  sortedBy = columns[0].name;
  rising = columns[0].sign < 0;
  const draw = () => refreshTable(columns);
  whenSettled(["step"], draw);
  whenChanged(["node", "notes"], draw);
  draw();
}

function refreshTable(columns) {
  const by = columns.find((column) => column.name === sortedBy);
  const rows = NODES.filter((node) => by.of(node) !== null && (everyRow || keptNow(node)));
  rows.sort((a, b) => (rising ? 1 : -1) * (by.of(a) - by.of(b)));
  const chosen = parse(state.node ?? "")?.node;
  const head = make("tr", {}, make("th", { scope: "col" }, "node"), make("th", { scope: "col" }, "in"), ...columns.map((column) => sortHeading(column, columns)));
  const lines = rows.slice(0, everyRow ? rows.length : FEW_ROWS).map((node) => make("tr", { class: node.id === chosen ? "chosen" : null },
    make("th", { scope: "row" }, nodeLink(node.id)), make("td", {}, keptNow(node) ? "yes" : "no"),
    ...columns.map((column) => make("td", { class: "number" }, column.text ? column.text(node) || "–" : number(column.of(node))))));
  const more = button(everyRow ? "Kept nodes alone" : "All nodes, kept or not", () => { everyRow = !everyRow; refreshTable(columns); });
  put("table", wide("Heads and MLPs", make("table", { class: "sorted" }, make("thead", {}, head), make("tbody", {}, ...lines))),
    make("p", { class: "row" }, more, make("span", { class: "soft" },
      `${lines.length} of ${rows.length} ${everyRow ? "" : "kept "}nodes with this figure. Δ: with the node changed, less without. Attention is of the last token, a mean over ${evidence?.prompts_used ?? "the"} prompts.`)));
}

function sortHeading(column, columns) {
  const chosen = column.name === sortedBy;
  const sort = () => {
    rising = chosen ? !rising : column.sign < 0;
    sortedBy = column.name;
    refreshTable(columns);
    document.querySelector(`#table th[data-by="${column.name}"] button`).focus();
  };
  return make("th", { scope: "col", class: "number", title: column.label, "data-by": column.name, "aria-sort": chosen ? (rising ? "ascending" : "descending") : null }, button(column.short, sort));
}

function nodeLink(id, text = id) {
  return button(text, () => change({ node: id }), { class: "link", "data-link": id });
}
