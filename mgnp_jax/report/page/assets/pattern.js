// A head's attention on the chosen prompt: clean, corrupted, and inside the circuit.

const RUNS = { clean: "clean run", corrupted: "corrupted run", circuit: "inside the circuit" };
const patterns = new Map();

// [query][key] as numbers from 0 to 1; null where the head has none.
function patternOf(node, run, prompt) {
  const kept = evidence?.patterns;
  const index = kept?.heads?.findIndex(([layer, head]) => layer === node.layer && head === node.head) ?? -1;
  if (index < 0 || !kept[run]) return null;
  if (!patterns.has(run)) patterns.set(run, bytesOf(kept[run].data ?? kept[run]));
  const [, heads, size] = kept[run].shape ?? kept.shape;
  const bytes = patterns.get(run), start = (prompt * heads + index) * size * size;
  return (query, key) => bytes[start + query * size + key] / 255;
}

function patternPart(node, example) {
  const runs = Object.keys(RUNS).filter((run) => patternOf(node, run, state.prompt));
  if (!runs.length) {
    const reason = evidence?.patterns ? "Attention is kept of the strongest heads of the circuit alone." : null;
    return reason ? make("p", { class: "soft" }, reason) : null;
  }
  const last = example.clean_tokens.length - 1;
  const query = Math.min(state.query ?? last, last);
  const lines = runs.map((run) => {
    const tokens = run === "corrupted" ? example.corrupted_tokens : example.clean_tokens;
    const at = patternOf(node, run, state.prompt);
    return make("div", {}, make("small", {}, RUNS[run]), tokenLine(tokens, {
      values: tokens.map((_, key) => (key <= query ? at(query, key) : null)), most: 1, act: (i) => change({ query: i }), pressed: query, label: `Attention from token ${query}, ${RUNS[run]}`,
    }));
  });
  const run = runs.includes(state.pattern) ? state.pattern : runs[0];
  const choose = make("div", { class: "row", role: "group", "aria-label": "Which run" },
    ...runs.map((name) => button(RUNS[name], () => change({ pattern: name }), { "aria-pressed": name === run ? "true" : "false" })));
  const tokens = run === "corrupted" ? example.corrupted_tokens : example.clean_tokens;
  return make("div", {}, heading("Attention"),
    make("p", { class: "soft" }, `From token ${query}`, " (click on another); the darker, the more of it goes there."),
    ...lines, choose, heatMap(node, run, tokens, query));
}

const MOST_TOKENS = 80;

function heatMap(node, run, tokens, query) {
  const size = Math.min(tokens.length, MOST_TOKENS);
  // Of a long prompt the end, where it is answered.
  const begin = tokens.length - size, whole = patternOf(node, run, state.prompt);
  const at = (row, key) => whole(row + begin, key + begin);
  const side = Math.max(5, Math.min(15, Math.floor(330 / size))), left = 78, top = 74;
  const chart = svg(left + side * size + 40, top + side * size + 2, `Attention of ${node.id}, ${RUNS[run]}: rows attend to columns`);
  const name = (i) => clipped(visible(tokens[i + begin]), 11);
  for (let row = 0; row < size; row++) {
    for (let key = 0; key <= row; key++) {
      const value = at(row, key);
      if (value < 0.01) continue;
      chart.append("rect").attr("x", left + key * side).attr("y", top + row * side).attr("width", side - 0.5).attr("height", side - 0.5)
        .style("fill", "var(--helps)").style("fill-opacity", Math.sqrt(value).toFixed(3))
        .append("title").text(`${name(row)} → ${name(key)}: ${value.toFixed(2)}`);
    }
  }
  chart.append("rect").attr("x", left - 0.5).attr("y", top - 0.5).attr("width", size * side).attr("height", size * side).style("fill", "none").style("stroke", "var(--line)");
  if (query >= begin) {
    chart.append("rect").attr("x", left - 1).attr("y", top + (query - begin) * side - 1).attr("width", size * side + 1).attr("height", side + 1).style("fill", "none").style("stroke", "var(--ink)");
  }
  if (side >= 9) {
    for (let i = 0; i < size; i++) {
      chart.append("text").attr("x", left - 4).attr("y", top + i * side + side / 2 + 4).attr("text-anchor", "end").text(name(i));
      chart.append("text").attr("transform", `translate(${left + i * side + side / 2 + 3},${top - 4}) rotate(-55)`).text(name(i));
    }
  }
  const cut = size < tokens.length ? make("p", { class: "soft" }, `The last ${size} of ${tokens.length} tokens.`) : null;
  return make("div", {}, wide("Attention as a heat map", chart.node()), cut);
}
