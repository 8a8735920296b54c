// All that is known of the chosen node.

const MOST_LISTED = 12;

function drawPanel() {
  whenChanged(["node", "prompt", "pattern", "query"], refreshPanel);
  whenSettled(["step"], refreshPanel);
  refreshPanel();
}

function refreshPanel() {
  const node = parse(state.node ?? "");
  document.getElementById("panel-title").textContent = node ? `Node ${node.id}` : "Node";
  if (!node) {
    const none = state.node === "input" || state.node === "logits";
    put("panel", make("p", { class: "soft" }, none ? `${state.node} is no node that could be pruned; its edges are in the graph.` : "Click on a node of the grid, the graph or the table, or search for one: all that is known of it is shown here."),
      evidence ? null : missing());
    return;
  }
  const example = examples()[state.prompt];
  const parts = [
    make("p", {}, describe(node)),
    node.node !== node.id ? make("p", {}, "Part of ", nodeLink(node.node), ".") : null,
    evidence ? effectsPart(node) : missing(),
    noteEditor(node),
    example ? positionsPart(node, example) : null,
    node.granularity === "attention_heads" && example ? patternPart(node, example) : null,
    writesPart(node),
    driversPart(node),
    withinPart(node),
    edgesPart(node),
  ];
  put("panel", ...parts);
}

function missing() {
  return make("p", { class: "soft" }, "This page has the circuit and its figures alone. Effects of each node, attention, what nodes write and which edges matter are its evidence: ",
    make("code", {}, "python -m experiments.show --circuit FOLDER"), " gathers it for a run's folder; for others ", make("code", {}, "mgnp_jax.explain(model, circuit, data.test).save(FOLDER)"), " does, before it.");
}

const EFFECTS = { removal: "Removed from the circuit", addition: "Alone, added to nothing" };

function effectsPart(node) {
  const cell = (effect, figure) => make("td", { class: "number" }, number(effectOf(node, effect, figure)));
  const rows = Object.entries(EFFECTS).filter(([effect]) => effectOf(node, effect, "score") !== null || effectOf(node, effect, "kl") !== null)
    .map(([effect, label]) => make("tr", {}, make("th", { scope: "row" }, label), cell(effect, "score"), cell(effect, "kl"), make("td", {}, effectOf(node, effect, "exact") ? "exact" : "first order")));
  const direct = directOf(node);
  const attends = Object.keys(evidence.attends ?? {}).filter((kind) => attendsOf(node, kind) !== null);
  return make("div", {},
    rows.length ? make("table", { class: "plain" }, make("thead", {}, make("tr", {}, make("td", {}, ""), ...["Δ score", "Δ KL"].map((text) => make("th", { scope: "col", class: "number" }, text)), make("th", { scope: "col" }, "how"))), make("tbody", {}, ...rows))
      : make("p", { class: "soft" }, "No effect of it was measured."),
    rows.length ? scaleLine() : null,
    votesOf(node) === null ? null : make("p", {}, `${number(100 * votesOf(node))} % of the circuits of several seeds keep it.`),
    direct === null ? null : make("p", {}, `Writes ${number(direct)} to the answer's logit difference directly.`),
    attends.length ? make("p", {}, "The last token's attention: ", attends.map((kind) => `${attendsOf(node, kind).toFixed(2)} ${(ATTENDS[kind] ?? kind).replace("attends ", "")}`).join(", "), ".") : null);
}

// What effects are to be held against.
function scaleLine() {
  const { model, circuit, corrupted } = evidence.scores ?? {};
  if (!circuit || !model || !corrupted) return null;
  return make("p", { class: "soft" }, `On ${evidence.prompts_used} held-out prompts the circuit has the score ${number(circuit.score)} and KL ${number(circuit.kl)}; the model's score is ${number(model.score)}, on corrupted prompts ${number(corrupted.score)}.`);
}

function positionsPart(node, example) {
  const part = evidence.positions?.[node.granularity]?.[state.prompt];
  const values = node.granularity === "attention_heads" ? part?.[node.layer]?.[node.head] : part?.[node.layer];
  if (!values || !values.some((value) => value)) return null;
  const tokens = example.clean_tokens;
  return make("div", {}, heading("Where it acts on this prompt"),
    make("p", { class: "soft" }, "If it leaves the circuit at one token alone, the score, to first order: ", make("span", { class: "key helps" }), "falls, ", make("span", { class: "key hurts" }), "rises; under the pointer the number."),
    tokenLine(tokens, { values: values.slice(0, tokens.length), label: "Effect by token", sign: -1 }));
}

function rowsOf(list, node) {
  const second = node.granularity === "attention_heads" ? node.head : node.neuron;
  return list?.find(([layer, index]) => layer === node.layer && index === second)?.[2];
}

function writesPart(node) {
  const part = evidence?.writes?.[node.granularity];
  const towards = rowsOf(part?.towards, node), away = rowsOf(part?.away, node);
  if (!towards && !away) return null;
  return make("div", {}, heading("What it writes"),
    towards ? make("div", {}, make("small", {}, "towards"), tokenChips(towards)) : null,
    away ? make("div", {}, make("small", {}, "away from"), tokenChips(away)) : null);
}

function driversPart(node) {
  if (node.granularity !== "mlp_hidden") return null;
  const found = rowsOf(evidence?.drivers, node);
  if (!found?.length) return null;
  // The first of the prompts that drive neurons are the examples.
  const lines = found.map(([prompt, position, activation]) => {
    const tokens = examples()[prompt]?.clean_tokens;
    const text = evidence.driver_prompts?.[prompt];
    const shown = tokens ? tokenLine(tokens, { values: tokens.map((_, i) => (i === position ? activation : null)) }) : make("div", { class: "text", dir: "auto", tabindex: (text ?? "").length > 500 ? 0 : null }, text ?? "");
    return make("div", {}, make("small", {}, `${number(activation)} at token ${position}`), shown);
  });
  return make("div", {}, heading("Prompts that drive it most"), ...lines);
}

function withinPart(node) {
  const found = strongestWithin(node, MOST_LISTED);
  if (!found.length) return null;
  const most = Math.abs(found[0].value) || 1;
  return make("div", {}, heading("Its strongest neurons"), barList(found.map((each) => ({ link: each.id, value: each.value, most, sign: -1 }))));
}

function barList(rows) {
  return make("table", { class: "plain" }, make("tbody", {}, ...rows.map(({ link, note, value, most, sign = 1 }) => make("tr", {},
    make("td", {}, link === "input" || link === "logits" ? link : nodeLink(link), note ? make("small", {}, ` ${note}`) : null),
    make("td", {}, value === null ? "" : make("span", { class: `bar ${value * sign > 0 ? "helps" : "hurts"}`, style: { width: `${(90 * Math.abs(value)) / most}px` } })),
    make("td", { class: "number" }, value === null ? "" : number(value))))));
}

function edgesPart(node) {
  if (node.node !== node.id) return null;
  const edges = edgesNow().filter((edge) => edge.kept);
  const side = (own, other, title) => {
    const rows = edges.filter((edge) => edge[own] === node.id).sort((a, b) => Math.abs(b.value ?? 0) - Math.abs(a.value ?? 0));
    if (!rows.length) return null;
    const most = Math.abs(rows[0].value ?? 0) || 1;
    const left = rows.length - MOST_LISTED;
    return make("div", {}, heading(`${title} (${count(rows.length)})`),
      barList(rows.slice(0, MOST_LISTED).map((edge) => ({ link: edge[other], note: edge.by ? `as ${edge.by}` : "", value: edge.value, most }))),
      left > 0 ? make("small", {}, `and ${count(left)} more`) : null);
  };
  return make("div", {}, side("reader", "writer", "Reads from"), side("writer", "reader", "Read by"));
}
