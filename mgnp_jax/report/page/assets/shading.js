// What the colour of a node means: one list of the figures by which nodes can be shaded.

const ATTENDS = {
  to_answer: "attends to the right answer",
  to_wrong_answer: "attends to a wrong answer",
  to_repeated: "attends to a repeated token",
  to_first: "attends to the first token",
  to_previous: "attends to the previous token",
};

// `of`: the number shown; `sign`: 1 where a larger one means that the node serves the task.
const known = [];
if (evidence) {
  known.push(
    { name: "removal-score", label: "removing it changes the score", of: (node) => effectOf(node, "removal", "score"), sign: -1 },
    { name: "removal-kl", label: "removing it changes KL", of: (node) => effectOf(node, "removal", "kl"), sign: 1 },
    { name: "addition-score", label: "it alone changes the score", of: (node) => effectOf(node, "addition", "score"), sign: 1 },
    { name: "addition-kl", label: "it alone changes KL", of: (node) => effectOf(node, "addition", "kl"), sign: -1 },
    { name: "direct", label: "writes to the answer directly", of: directOf, sign: 1 },
    { name: "votes", label: "kept by what part of the circuits of several seeds", of: votesOf, sign: 1 },
  );
  for (const kind of Object.keys(evidence.attends ?? {})) {
    known.push({ name: kind, label: ATTENDS[kind] ?? `attends ${kind}`, of: (node) => attendsOf(node, kind), sign: 1 });
  }
}
if (data.steps) {
  const last = data.steps.kept.length;
  known.push({
    name: "rank", label: "how small the circuit is that still has it", sign: 1,
    of: (node) => { const first = data.steps.first[node.granularity][node.at]; return first < last ? 1 - first / last : 0; },
    text: (node) => { const first = data.steps.first[node.granularity][node.at]; return first < last ? `${number(100 * data.steps.kept[first], 2)}%` : ""; },
  });
}
known.push({ name: "kept", label: "in the circuit, by neurons kept", of: keptPart, sign: 1, text: () => "" });
const offered = known.filter((shade) => NODES.some((node) => shade.of(node) !== null));

function shades() {
  return offered;
}

function keptPart(node) {
  if (!keptNow(node)) return 0;
  const kinds = KINDS_WITHIN[node.granularity];
  if (data.level === "edge") return 0.6;
  const parts = kinds.map((name) => neuronsNow(name, node.at) / perParent[name]);
  return 0.25 + 0.75 * Math.min(...parts);
}

function shadeNow() {
  return offered.find((shade) => shade.name === state.shade) ?? offered[0];
}

const scales = new Map();

function strongest(shade) {
  if (shade.name === "kept") return 1;
  if (!scales.has(shade.name)) scales.set(shade.name, d3.max(NODES, (node) => Math.abs(shade.of(node) ?? 0)) || 1);
  return scales.get(shade.name);
}

// The class and strength of a colour: helps where the node serves the task, hurts where it is in its way.
function colourOf(node, shade = shadeNow()) {
  const value = shade.of(node);
  if (value === null || value === 0) return { kind: "", strength: "0%" };
  const part = Math.min(1, Math.abs(value) / strongest(shade));
  return { kind: value * shade.sign > 0 ? "helps" : "hurts", strength: `${(100 * Math.sqrt(part)).toFixed(1)}%` };
}

function textOf(node, shade = shadeNow()) {
  if (shade.text) return shade.text(node);
  const value = shade.of(node);
  if (value === null || Math.abs(value) < strongest(shade) / 50) return "";
  const text = value.toFixed(strongest(shade) >= 10 ? 0 : strongest(shade) >= 1 ? 1 : 2);
  return Number(text) === 0 ? "" : text.replace("-", "−").replace(/^(−?)0\./, "$1.");
}

function paint(element, node, shade) {
  const { kind, strength } = colourOf(node, shade);
  element.classList.toggle("helps", kind === "helps");
  element.classList.toggle("hurts", kind === "hurts");
  element.style.setProperty("--s", strength);
}

function shadeChooser() {
  const choose = make("select", { id: "shade", on: { change: (event) => change({ shade: event.target.value }) } },
    ...offered.map((shade) => make("option", { value: shade.name }, shade.label)));
  choose.value = shadeNow().name;
  whenChanged(["shade"], () => { choose.value = shadeNow().name; });
  return make("div", { class: "row" }, make("label", { for: "shade" }, "Shade by"), choose);
}

// What the colours mean for the chosen figure.
function shadeKey() {
  const line = make("p", { class: "row soft", id: "shade-key" });
  const draw = () => {
    const signed = NODES.some((node) => shadeNow().of(node) < 0);
    const key = (kind, text) => make("span", {}, make("span", { class: `key ${kind}` }), text);
    const within = data.level === "node" ? [make("span", {}, "line below: neurons kept")] : [];
    line.replaceChildren(...(signed ? [key("helps", "serves the task"), key("hurts", "is in its way")] : [key("helps", "the darker, the more")]),
      make("span", {}, "dashed: not in the circuit"), ...within);
  };
  whenChanged(["shade"], draw);
  draw();
  return line;
}
