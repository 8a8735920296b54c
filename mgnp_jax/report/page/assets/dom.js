// Elements, made of names and plain text alone: nothing here is ever read as HTML.

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "on") for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
    else if (key === "style") for (const [property, set] of Object.entries(value)) element.style.setProperty(property, set);
    else if (key === "value") element.value = value;
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function put(id, ...children) {
  const place = document.getElementById(id);
  place.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
  return place;
}

function button(text, act, attributes = {}) {
  return make("button", { type: "button", on: { click: act }, ...attributes }, text);
}

// A scrolling frame that the keyboard reaches, too.
function wide(label, child, extra = "") {
  return make("div", { class: `wide ${extra}`, role: "region", "aria-label": label, tabindex: 0 }, child);
}

function number(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 1e5 || size < 1e-4 ? value.toExponential(1) : value.toPrecision(Math.max(digits, Math.ceil(Math.log10(size + 1))));
  return text.replace("-", "−");
}

function count(value) {
  return value.toLocaleString("en-US");
}

// Tokens with their spaces and line ends to be seen.
function visible(token) {
  const text = token.replace(/\n/g, "↵").replace(/\t/g, "⇥");
  return text === "" ? "∅" : text;
}

function clipped(text, most) {
  const letters = Array.from(text.slice(0, 2 * most));
  return letters.length > most ? letters.slice(0, most - 1).join("") + "…" : letters.join("");
}

// Axes have room for six letters.
function onAxis(value) {
  return d3.format(value && Math.abs(value) < 1e-3 ? "~e" : "~g")(value);
}

// What prompts differ in may be their end.
function clippedInside(text, most) {
  const letters = Array.from(text), end = Math.floor(most / 2);
  return letters.length > most ? `${letters.slice(0, most - end - 1).join("")}…${letters.slice(-end).join("")}` : text;
}

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

function svg(width, height, label) {
  return d3.create("svg").attr("viewBox", `0 0 ${width} ${height}`).attr("width", width).attr("height", height)
    .attr("role", "img").attr("aria-label", label);
}

function heading(text, level = "h3") {
  return make(level, {}, text);
}
