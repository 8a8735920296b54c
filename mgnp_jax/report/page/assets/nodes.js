// The nodes by name: a3.h5, m3, the neurons a3.h5.n7, m3.n12 and m3.o4, and what is known of each.

const bits = Object.fromEntries(Object.entries(data.kept).map(([name, text]) => [name, bytesOf(text)]));

function isKept(granularity, at) {
  return Boolean((bits[granularity][at >> 3] >> (at & 7)) & 1);
}

// null for what is no node of this model; otherwise its granularity and place in the flat array.
function parse(id) {
  const { layers, heads, head_width: width, mlp_width: hidden, width: outputs } = shape;
  let found = /^a(\d+)\.h(\d+)(?:\.n(\d+))?$/.exec(id);
  if (found) {
    const [layer, head, neuron] = found.slice(1).map(Number);
    if (layer >= layers || head >= heads) return null;
    const at = layer * heads + head;
    if (found[3] === undefined) return { id, granularity: "attention_heads", at, layer, head, node: id };
    if (neuron >= width) return null;
    return { id, granularity: "attention_neurons", at: at * width + neuron, layer, head, neuron, node: `a${layer}.h${head}` };
  }
  found = /^m(\d+)(?:\.([no])(\d+))?$/.exec(id);
  if (!found || Number(found[1]) >= layers) return null;
  const layer = Number(found[1]);
  if (found[2] === undefined) return { id, granularity: "mlp_blocks", at: layer, layer, node: id };
  const neuron = Number(found[3]);
  const [granularity, most] = found[2] === "n" ? ["mlp_hidden", hidden] : ["mlp_output", outputs];
  return neuron < most ? { id, granularity, at: layer * most + neuron, layer, neuron, node: `m${layer}` } : null;
}

function neuronName(granularity, at) {
  const { heads, head_width: width, mlp_width: hidden, width: outputs } = shape;
  if (granularity === "attention_neurons") {
    const head = Math.floor(at / width);
    return `a${Math.floor(head / heads)}.h${head % heads}.n${at % width}`;
  }
  const [letter, most] = granularity === "mlp_hidden" ? ["n", hidden] : ["o", outputs];
  return `m${Math.floor(at / most)}.${letter}${at % most}`;
}

const NODES = [];
for (let layer = 0; layer < shape.layers; layer++) {
  for (let head = 0; head < shape.heads; head++) NODES.push(parse(`a${layer}.h${head}`));
  NODES.push(parse(`m${layer}`));
}

function keptNow(node) {
  if (state.step === null || !data.steps) return isKept(node.granularity, node.at);
  const first = data.steps.first[node.granularity];
  return first ? first[node.at] <= state.step : isKept(node.granularity, node.at);
}

const KINDS_WITHIN = { attention_heads: ["attention_neurons"], mlp_blocks: ["mlp_hidden", "mlp_output"] };
const perParent = { attention_neurons: shape.head_width, mlp_hidden: shape.mlp_width, mlp_output: shape.width };

const foundCounts = Object.fromEntries(Object.entries(perParent).map(([name, each]) => {
  const parents = name === "attention_neurons" ? shape.layers * shape.heads : shape.layers;
  const counts = new Array(parents).fill(0);
  for (let at = 0; at < parents * each; at++) if (isKept(name, at)) counts[Math.floor(at / each)]++;
  return [name, counts];
}));

function neuronsNow(granularity, parent) {
  return state.step === null || !data.steps ? foundCounts[granularity][parent] : data.steps.counts[granularity][state.step][parent];
}

// Numbers of neurons are sparse, of heads and blocks nested lists.
const byPlace = new Map();

function placed(part) {
  if (!byPlace.has(part)) byPlace.set(part, new Map(part.places.map((at, i) => [at, part.values[i]])));
  return byPlace.get(part);
}

function valueAt(part, node) {
  if (!part) return null;
  if (part.places) return placed(part).get(node.at) ?? null;
  return (node.granularity === "attention_heads" ? part[node.layer]?.[node.head] : part[node.layer]) ?? null;
}

// effect: removal or addition; figure: score, kl or exact.
function effectOf(node, effect, figure) {
  return valueAt(evidence?.[effect]?.[node.granularity]?.[figure], node);
}

function directOf(node) {
  return valueAt(evidence?.writes?.[node.granularity]?.direct, node);
}

function votesOf(node) {
  return valueAt(evidence?.votes?.[node.granularity], node);
}

function attendsOf(node, kind) {
  return node.granularity === "attention_heads" ? (evidence?.attends?.[kind]?.[node.layer]?.[node.head] ?? null) : null;
}

function strongestWithin(node, most) {
  const found = [];
  for (const granularity of KINDS_WITHIN[node.granularity] ?? []) {
    const part = evidence?.removal?.[granularity]?.score;
    if (!part) continue;
    const each = perParent[granularity];
    part.places.forEach((at, i) => {
      if (Math.floor(at / each) === node.at) found.push({ granularity, at, value: part.values[i], id: neuronName(granularity, at) });
    });
  }
  return found.sort((a, b) => Math.abs(b.value) - Math.abs(a.value)).slice(0, most);
}

// "Attention heads" becomes small, "MLP blocks" does not.
function inSentence(label) {
  return label.startsWith("MLP") ? label : label.charAt(0).toLowerCase() + label.slice(1);
}

function describe(node) {
  const within = (KINDS_WITHIN[node.granularity] ?? []).filter(() => data.level === "node").map((name) =>
    `${count(neuronsNow(name, node.at))} of ${count(perParent[name])} ${inSentence(data.granularities[name])}`);
  return `${node.id}, ${keptNow(node) ? ["kept", ...within].join(", ") : "not in the circuit"}`;
}
