// One field that finds nodes by name, label or the tokens they write, and prompts by their words.

const MOST_FOUND = 30;

function findAll(text) {
  const wanted = text.trim();
  if (!wanted) return [];
  const found = [];
  const add = (label, act) => { if (found.length < MOST_FOUND) found.push({ label, act }); };
  const low = wanted.toLowerCase();
  const exact = parse(low);
  if (exact) add(describe(exact), () => change({ node: exact.id }));
  for (const node of NODES) if (node.id !== exact?.id && node.id.startsWith(low)) add(describe(node), () => change({ node: node.id }));
  for (const [id, note] of Object.entries(state.notes)) {
    if (`${note.label} ${note.group}`.toLowerCase().includes(low)) add(`${id}: ${note.label} ${note.group}`, () => change({ node: id }));
  }
  for (const [granularity, part] of Object.entries(evidence?.writes ?? {})) {
    for (const way of ["towards", "away"]) {
      for (const [layer, index, pairs] of part[way] ?? []) {
        const hit = pairs.find(([token]) => token.toLowerCase().includes(low));
        const id = granularity === "attention_heads" ? `a${layer}.h${index}` : `m${layer}.n${index}`;
        if (hit) add(`${id} writes ${way === "away" ? "away from" : "towards"} “${clipped(visible(hit[0]), 40)}”`, () => change({ node: id }));
      }
    }
  }
  examples().forEach((example, i) => {
    if (example.clean.toLowerCase().includes(low)) add(`Prompt ${i + 1}: ${clipped(visible(example.clean), 60)}`, () => change({ prompt: i, query: null }));
  });
  return found;
}

function searchField() {
  const list = make("ul", { class: "found", id: "found", role: "listbox", "aria-label": "Found", hidden: true });
  const input = make("input", { type: "search", id: "search", placeholder: "a0.h3, m2, a token", role: "combobox", "aria-expanded": "false", "aria-controls": "found", "aria-autocomplete": "list", "aria-label": "Search nodes, tokens and prompts", autocomplete: "off" });
  let found = [], at = -1;
  const show = () => {
    list.replaceChildren(...found.map((each, i) => make("li", { role: "option", id: `found-${i}`, "aria-selected": i === at ? "true" : "false", dir: "auto", on: { mousedown: (event) => { event.preventDefault(); take(i); } } }, each.label)));
    if (!found.length && input.value.trim()) list.append(make("li", { role: "option", "aria-selected": "false" }, "Nothing found"));
    list.hidden = !input.value.trim();
    input.setAttribute("aria-expanded", list.hidden ? "false" : "true");
    if (at >= 0) input.setAttribute("aria-activedescendant", `found-${at}`);
    else input.removeAttribute("aria-activedescendant");
  };
  const hide = () => { list.hidden = true; input.setAttribute("aria-expanded", "false"); };
  const take = (i) => { found[i]?.act(); hide(); };
  input.addEventListener("input", () => { found = findAll(input.value); at = found.length ? 0 : -1; show(); });
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      at = found.length ? (at + (event.key === "ArrowDown" ? 1 : found.length - 1)) % found.length : -1;
      show();
      event.preventDefault();
    } else if (event.key === "Enter") take(at);
    else if (event.key === "Escape") hide();
  });
  input.addEventListener("blur", hide);
  return make("div", { class: "search" }, input, list);
}
