// The colours of the page, and the circuit beside others that should fail.

function themeButton() {
  const dark = () => {
    const set = document.documentElement.dataset.theme;
    return set ? set === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const text = () => (dark() ? "Light" : "Dark");
  const found = button(text(), () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    found.textContent = text();
  }, { id: "theme" });
  return found;
}

const BESIDE = { circuit: "Circuit", random: "Random, of its size", complement: "All but the circuit", empty: "Nothing kept" };

function drawControls() {
  const controls = data.results.controls;
  if (!controls?.circuit) return;
  const names = Object.keys(BESIDE).filter((name) => controls[name]);
  const base = controls.circuit;
  const of = base.prompts ? `first ${base.prompts} test prompts` : "";
  const panels = [
    ["Accuracy", "accuracy", base.base_accuracy],
    ["Score", "score", base.base_score],
    ["KL(model ‖ circuit), nats", "kl", null],
  ];
  const charts = panels.map(([label, figure, model]) => controlChart(label, names, names.map((name) => controls[name][figure]), model, of));
  put("controls", make("div", { class: "charts" }, ...charts));
}

function controlChart(label, names, values, model, of) {
  const width = 330, left = 118, right = 46, row = 17, top = 4;
  const height = top + row * names.length + 4;
  const told = names.map((name, i) => `${BESIDE[name]} ${number(values[i])}`).join(", ");
  const chart = svg(width, height, `${label}: ${told}${model === null ? "" : `; model ${number(model)}`}`);
  const x = d3.scaleLinear().domain(d3.extent([0, ...values, ...(model === null ? [] : [model])])).range([left, width - right]);
  if (model !== null) {
    chart.append("line").attr("x1", x(model)).attr("x2", x(model)).attr("y1", top).attr("y2", height - 4)
      .style("stroke", "var(--ink)").attr("stroke-dasharray", "3 2").append("title").text(`model ${number(model)}`);
  }
  names.forEach((name, i) => {
    const y = top + row * i;
    chart.append("text").attr("x", left - 6).attr("y", y + 12).attr("text-anchor", "end").text(BESIDE[name]);
    chart.append("rect").attr("x", Math.min(x(0), x(values[i]))).attr("y", y + 3).attr("height", row - 6)
      .attr("width", Math.max(1, Math.abs(x(values[i]) - x(0)))).style("fill", i ? "var(--same)" : "var(--helps)");
    chart.append("text").attr("class", "over-line").attr("x", Math.max(x(0), x(values[i])) + 4).attr("y", y + 12).text(number(values[i]));
  });
  const notes = [of, model === null ? "" : "dashed: the model"].filter(Boolean);
  const note = notes.length ? ` (${notes.join("; ")})` : "";
  return make("div", { class: "chart" }, make("div", { class: "chart-title" }, label, make("small", {}, note)), chart.node());
}
