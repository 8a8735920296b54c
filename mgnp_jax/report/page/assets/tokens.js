// Prompts token by token, shaded by numbers where there are some.

// values: one a token, or null; act: what a click on a token does.
function tokenLine(tokens, { values = null, most = null, differs = null, act = null, pressed = null, label = null, sign = 1 } = {}) {
  const top = most ?? d3.max(values ?? [0], (value) => Math.abs(value ?? 0)) ?? 0;
  const parts = tokens.map((token, i) => {
    const value = values?.[i] ?? null;
    const told = `${i}: ${clipped(visible(token), 60)}${value === null ? "" : ` ${number(value)}`}`;
    const attributes = { class: "token", title: told, dir: "auto" };
    const element = act
      ? make("button", { ...attributes, type: "button", "aria-pressed": pressed === i ? "true" : "false", on: { click: () => act(i) } }, visible(token))
      : make("span", attributes, visible(token));
    if (value && top > 0) {
      element.classList.add(value * sign > 0 ? "helps" : "hurts");
      element.style.setProperty("--s", `${(100 * Math.sqrt(Math.min(1, Math.abs(value) / top))).toFixed(1)}%`);
    }
    if (differs?.[i] !== undefined && differs[i] !== token) element.classList.add("differs");
    return element;
  });
  // What scrolls must be reached by the keyboard, too.
  const long = d3.sum(tokens, (token) => token.length + 1) > 500;
  return make("div", { class: "tokens", role: label ? "group" : null, "aria-label": label, tabindex: long && !act ? 0 : null }, ...parts);
}

// A list of tokens with numbers, such as what a node writes towards.
function tokenChips(pairs) {
  return make("ul", { class: "chips" }, ...pairs.map(([token, value]) =>
    make("li", { class: "chip", dir: "auto" }, visible(token), " ", make("small", {}, number(value, 2)))));
}

function topTable(title, rows, right) {
  return make("div", {}, make("h3", {}, title), make("table", { class: "plain" }, make("tbody", {}, ...rows.map(([token, chance]) =>
    make("tr", {}, make("td", { title: clipped(visible(token), 200) }, right.includes(token) ? make("b", {}, visible(token)) : visible(token)),
      make("td", {}, make("span", { class: "bar plain", style: { width: `${(50 * chance).toFixed(1)}px` } })),
      make("td", { class: "number" }, chance?.toFixed(3) ?? "–"))))));
}
