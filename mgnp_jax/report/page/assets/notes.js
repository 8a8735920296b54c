// Nodes that a reader pins, labels and groups; the address keeps them.

function withNote(id, note) {
  const notes = { ...state.notes };
  if (note) notes[id] = note;
  else delete notes[id];
  change({ notes });
}

// Drawn anew when a node is pinned or not any more, and not while its fields are typed in.
function noteEditor(node) {
  const place = make("div", { class: "row", id: "note-editor", "data-pinned": state.notes[node.id] ? "yes" : "no" });
  const note = state.notes[node.id];
  place.append(button(note ? "Unpin" : "Pin", () => withNote(node.id, note ? null : { label: "", group: "" }), { id: "pin", "aria-pressed": note ? "true" : "false" }));
  if (!note) {
    place.append(make("small", {}, "to label and group it"));
    return place;
  }
  const field = (name, text, most) => {
    const set = (event) => withNote(node.id, { ...state.notes[node.id], [name]: event.target.value });
    const input = make("input", { type: "text", id: `note-${name}`, maxlength: most, value: note[name], list: name === "group" ? "groups" : null, on: { change: set } });
    return make("span", {}, make("label", { for: `note-${name}` }, `${text} `), input);
  };
  const groups = [...new Set(Object.values(state.notes).map((each) => each.group).filter(Boolean))];
  place.append(field("label", "Label", 200), field("group", "Group", 80),
    make("datalist", { id: "groups" }, ...groups.map((group) => make("option", { value: group }))));
  return place;
}

function refreshEditor() {
  const editor = document.getElementById("note-editor");
  const node = parse(state.node ?? "");
  if (!editor || !node || editor.dataset.pinned === (state.notes[node.id] ? "yes" : "no")) return;
  const focused = editor.contains(document.activeElement);
  editor.replaceWith(noteEditor(node));
  if (focused) document.getElementById("pin").focus();
}

function drawNotes() {
  whenChanged(["notes"], refreshNotes);
  whenChanged(["notes"], refreshEditor);
  refreshNotes();
}

function refreshNotes() {
  const pinned = Object.entries(state.notes);
  const said = troubles.map((text) => make("p", { class: "warning", role: "status" }, text));
  if (!pinned.length) {
    put("notes", ...said, make("p", { class: "soft" }, "None yet. A pinned node can be labelled and put into a group; the address of this page then has the notes, so that a link keeps them."));
    return;
  }
  const groups = d3.groups(pinned, ([, note]) => note.group).sort((a, b) => d3.ascending(a[0], b[0]));
  const lists = groups.map(([group, members]) => make("div", {}, group ? make("h3", { dir: "auto" }, group) : null,
    make("ul", { class: "chips" }, ...members.map(([id, note]) => make("li", { class: "chip", dir: "auto" }, nodeLink(id), note.label ? ` ${note.label}` : "",
      " ", button("×", () => withNote(id, null), { class: "link", "aria-label": `Unpin ${id}` }))))));
  put("notes", ...said, ...lists, make("p", { class: "row" }, button("Download the notes", () => save("notes.json", JSON.stringify(notesFile(), null, 1), "application/json"), { id: "save-notes" })));
}

function notesFile() {
  return { task: data.title.task, model: data.title.model, method: data.title.method, nodes: Object.entries(state.notes).map(([node, note]) => ({ node, ...note })) };
}
