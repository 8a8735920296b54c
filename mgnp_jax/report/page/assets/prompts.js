// The example prompts, and what model and circuit answer.

const ANSWERING = { model: "Model", circuit: "Circuit", corrupted: "Corrupted prompt" };

function drawPrompts() {
  const all = examples();
  if (!all.length) {
    document.getElementById("prompts-part").hidden = true;
    return;
  }
  const choose = make("select", { id: "prompt", on: { change: (event) => change({ prompt: Number(event.target.value), query: null }) } },
    ...all.map((example, i) => make("option", { value: i }, `${i + 1}: ${clippedInside(visible(example.clean), 70)}`)));
  const move = (by) => change({ prompt: (state.prompt + by + all.length) % all.length, query: null });
  const shown = make("div");
  put("prompts", make("div", { class: "row" }, make("label", { for: "prompt" }, "Prompt"), choose,
    button("Previous", () => move(-1)), button("Next", () => move(1))), shown);
  const refresh = () => {
    choose.value = String(state.prompt);
    shown.replaceChildren(promptPart(all[state.prompt]));
  };
  whenChanged(["prompt"], refresh);
  refresh();
}

function promptPart(example) {
  const { clean_tokens: clean, corrupted_tokens: corrupted } = example;
  const tops = Object.entries(ANSWERING).filter(([name]) => example.top?.[name])
    .map(([name, title]) => topTable(title, example.top[name], example.answers));
  return make("div", {},
    heading("Clean"), tokenLine(clean, { differs: corrupted, label: "Clean prompt by token" }),
    heading("Corrupted (what differs is underlined)"), tokenLine(corrupted, { differs: clean, label: "Corrupted prompt by token" }),
    make("p", { class: "row" }, "Right: ", tokenList(example.answers), " Wrong: ", tokenList(example.wrong_answers)),
    make("div", { class: "tops" }, ...tops));
}

function tokenList(tokens) {
  return make("ul", { class: "chips" }, ...tokens.map((token) => make("li", { class: "chip", dir: "auto" }, visible(token))));
}
