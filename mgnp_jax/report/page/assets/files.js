// Files that the browser writes from what is in this page.

function save(name, content, type) {
  const address = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = make("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

function drawFiles() {
  const offers = [
    ["nodes.csv", "every head, MLP and kept neuron with its figures", () => save("nodes.csv", nodesCsv(), "text/csv")],
    ["circuit.json", "the circuit as EAP-IG and MIB read it: edges, heads and MLPs whole", saveMib],
    ["masks.npz", "its masks, for numpy.load", () => save("masks.npz", new Blob([bytesOf(data.files.masks)], { type: "application/zip" }))],
  ];
  if (attributed.length || own.length) offers.push(["graph.json", "nodes and edges as Neuronpedia's graph viewer reads them, for the chosen prompt", () => save("graph.json", JSON.stringify(neuronpediaGraph()), "application/json")]);
  const sizes = data.steps ? make("p", { class: "soft" }, "All but the graph are of the circuit as found, whatever the slider says; of another size: ", make("code", {}, "mgnp_jax.load_circuit(FOLDER).at(keep=…)"), ".") : null;
  put("files", sizes, make("table", { class: "plain" }, make("tbody", {}, ...offers.map(([name, text, act]) =>
    make("tr", {}, make("td", {}, button(name, act, { "data-file": name })), make("td", {}, text))))));
}

async function saveMib() {
  const stream = new Blob([bytesOf(data.files.mib)]).stream().pipeThrough(new DecompressionStream("gzip"));
  save("circuit.json", await new Response(stream).text(), "application/json");
}

// A cell that begins like a formula would be one to a spreadsheet.
function csvCell(value) {
  const text = value === null || value === undefined ? "" : String(value);
  const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replace(/"/g, '""')}"` : safe;
}

function nodesCsv() {
  const figures = shades().filter((shade) => shade.name !== "kept");
  const rows = [["node", "kind", "layer", "kept", ...figures.map((shade) => shade.name), "label", "group"]];
  const add = (node) => rows.push([node.id, node.granularity, node.layer, isKept(node.granularity, node.at) ? 1 : 0,
    ...figures.map((shade) => (shade.name === "rank" && !data.steps.first[node.granularity] ? null : shade.of(node))), state.notes[node.id]?.label ?? "", state.notes[node.id]?.group ?? ""]);
  NODES.forEach(add);
  if (data.level === "node") {
    for (const name of Object.keys(perParent)) {
      const all = foundCounts[name].length * perParent[name];
      for (let at = 0; at < all; at++) if (isKept(name, at)) add(parse(neuronName(name, at)));
    }
  }
  return rows.map((row) => row.map(csvCell).join(",")).join("\r\n") + "\r\n";
}

// As Neuronpedia's graph-schema.json wants it: metadata, qParams, nodes, links; edges by query, key and value are one link.
function neuronpediaGraph() {
  const example = examples()[state.prompt];
  const tokens = example?.clean_tokens ?? [];
  const edges = edgesNow().filter((edge) => edge.kept);
  const ids = [...new Set(edges.flatMap((edge) => [edge.writer, edge.reader]))];
  const names = new Map(ids.map((id) => [id, graphNodeEntry(id, tokens)]));
  const links = d3.rollups(edges, (same) => d3.sum(same, (edge) => edge.value ?? 1), (edge) => edge.writer, (edge) => edge.reader)
    .flatMap(([writer, readers]) => readers.map(([reader, weight]) => ({ source: names.get(writer).node_id, target: names.get(reader).node_id, weight })));
  const pinned = Object.keys(state.notes).filter((id) => names.has(id));
  const groups = d3.groups(pinned.filter((id) => state.notes[id].group), (id) => state.notes[id].group);
  const { task, model, method } = data.title;
  return {
    metadata: {
      slug: `${task ?? "circuit"}-${method ?? "imported"}`.toLowerCase().replace(/[^a-z0-9]+/g, "-"), scan: model ?? "", prompt_tokens: tokens, prompt: example?.clean ?? "",
      info: { description: `Circuit of ${task ?? "a task"} found by ${method ?? "another tool"}; weights are ${attributed.length ? "attributions to the score" : "scores"}`, generator: { name: "mgnp_jax" } },
    },
    qParams: { pinnedIds: pinned.map((id) => names.get(id).node_id), supernodes: groups.map(([group, members]) => [group, ...members.map((id) => names.get(id).node_id)]), linkType: "both" },
    nodes: [...names.values()], links,
  };
}

function graphNodeEntry(id, tokens) {
  const node = parse(id), last = Math.max(tokens.length - 1, 0);
  const label = state.notes[id]?.label || id;
  if (!node) {
    const layer = id === "input" ? "E" : String(shape.layers);
    return { node_id: `${layer}_0_${id === "input" ? 0 : last}`, feature: null, layer, ctx_idx: id === "input" ? 0 : last, feature_type: id === "input" ? "embedding" : "logit", jsNodeId: `${layer}_0-0`, clerp: label };
  }
  const head = node.granularity === "attention_heads";
  const part = evidence?.positions?.[node.granularity]?.[state.prompt];
  const values = (head ? part?.[node.layer]?.[node.head] : part?.[node.layer])?.slice(0, tokens.length) ?? [];
  const position = values.length ? d3.greatestIndex(values, (a, b) => Math.abs(a) - Math.abs(b)) : last;
  // The MLP's number is the one after the last head's.
  const feature = head ? node.head : shape.heads;
  return { node_id: `${node.layer}_${feature}_${position}`, feature, layer: String(node.layer), ctx_idx: position, feature_type: head ? "attention head" : "mlp", jsNodeId: `${node.layer}_${feature}-0`, clerp: label };
}
