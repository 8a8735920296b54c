// What the page shows of what: the data, what is chosen, and the address that keeps it.

const data = JSON.parse(document.getElementById("content").textContent);
const evidence = data.evidence;
const shape = data.shape;

const state = { node: null, prompt: 0, step: null, shade: null, pattern: "clean", query: null, notes: {} };
const drawings = [];
let troubles = [];

// Draws a part of the page again whenever one of the names changes.
function whenChanged(names, draw) {
  drawings.push({ names, draw });
}

// The same, once the changes pause: for what takes longer than a slider that moves can wait.
function whenSettled(names, draw) {
  let waiting = 0;
  whenChanged(names, () => {
    clearTimeout(waiting);
    waiting = setTimeout(draw, 80);
  });
}

function change(part) {
  const names = Object.keys(part).filter((name) => state[name] !== part[name]);
  if (!names.length) return;
  Object.assign(state, part);
  for (const { names: wanted, draw } of drawings) {
    if (wanted.some((name) => names.includes(name))) draw();
  }
  clearTimeout(addressing);
  // Browsers refuse an address that changes as fast as a slider moves.
  if (names.every((name) => name === "step")) addressing = setTimeout(keepAddress, 200);
  else keepAddress();
}

let addressing = 0;

function keepAddress() {
  const text = addressOf(state);
  if (text !== location.hash) history.replaceState(null, "", text || location.pathname + location.search);
}

function addressOf(now) {
  const parts = new URLSearchParams();
  if (now.node) parts.set("node", now.node);
  if (now.prompt) parts.set("prompt", String(now.prompt));
  if (now.step !== null) parts.set("size", String(now.step));
  if (now.shade && now.shade !== now.firstShade) parts.set("shade", now.shade);
  if (Object.keys(now.notes).length) parts.set("notes", JSON.stringify(now.notes));
  const text = parts.toString();
  return text ? `#${text}` : "";
}

// An address may be anyone's: what it names must be there, and the rest is said and left out.
function stateOfAddress(hash) {
  const found = { node: null, prompt: 0, step: null, notes: {} };
  const parts = new URLSearchParams(hash.replace(/^#/, ""));
  troubles = [];
  if (parts.has("node")) {
    if (parse(parts.get("node"))) found.node = parts.get("node");
    else troubles.push(`The address names the node ${parts.get("node").slice(0, 40)}, which this circuit's model has not.`);
  }
  const prompt = Number(parts.get("prompt") ?? 0);
  if (Number.isInteger(prompt) && prompt >= 0 && prompt < examples().length) found.prompt = prompt;
  const step = Number(parts.get("size") ?? NaN);
  if (data.steps && Number.isInteger(step) && step >= 0 && step < data.steps.kept.length) found.step = step;
  if (shades().some((shade) => shade.name === parts.get("shade"))) found.shade = parts.get("shade");
  if (parts.has("notes")) {
    try {
      found.notes = checkedNotes(JSON.parse(parts.get("notes")));
    } catch (error) {
      troubles.push("The address holds notes that cannot be read; they are left out.");
    }
  }
  return found;
}

function checkedNotes(said) {
  const found = {};
  for (const [id, note] of Object.entries(said)) {
    if (!parse(id)) throw new Error(`no node ${id}`);
    found[id] = { label: String(note.label ?? "").slice(0, 200), group: String(note.group ?? "").slice(0, 80) };
  }
  return found;
}

function examples() {
  return evidence?.examples ?? [];
}
