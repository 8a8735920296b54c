// What would be answered after each layer: of the model, and inside the circuit.

const LENS = { score: "Score", answer_probability: "Probability of the right answer", answer_rank: "Rank of the right answer" };

function drawLens() {
  const lens = evidence?.lens;
  if (!lens?.model) {
    document.getElementById("lens-part").hidden = true;
    return;
  }
  const charts = Object.keys(LENS).filter((name) => lens.model[name]).map((name) => lensChart(name, lens));
  put("lens", make("p", { class: "soft" }, "The residual stream after the embedding (0) and after each layer, through the final norm and the unembedding; means over ",
    `${evidence.prompts_used} prompts. `, make("span", { class: "key helps" }), "circuit, ", make("span", { class: "key", style: { background: "var(--ink)" } }), "model"),
    make("div", { class: "charts" }, ...charts));
}

function lensChart(name, lens) {
  const width = 340, height = 170, left = 44, right = 8, top = 8, bottom = 26;
  const told = ["model", "circuit"].map((run) => `${run}: ${lens[run][name].map((value) => number(value)).join(", ")}`).join("; ");
  const chart = svg(width, height, `${LENS[name]} by layer; ${told}`);
  const values = [...lens.model[name], ...lens.circuit[name]].filter((value) => value !== null);
  const x = d3.scaleLinear().domain([0, lens.model[name].length - 1]).range([left, width - right]);
  const rank = name === "answer_rank";
  // The most likely token has rank 1.
  const y = rank ? d3.scaleLog().domain([Math.max(10, d3.max(values)), 1]) : d3.scaleLinear().domain(d3.extent([0, ...values])).nice();
  y.range([height - bottom, top]);
  chart.append("g").attr("transform", `translate(0,${height - bottom})`).call(d3.axisBottom(x).ticks(Math.min(8, lens.model[name].length), "d").tickSizeOuter(0));
  const ticks = rank ? [1, 10, 100, 1000, 10000, 100000].filter((tick) => tick <= y.domain()[0]) : y.ticks(5);
  chart.append("g").attr("transform", `translate(${left},0)`).call(d3.axisLeft(y).tickValues(ticks).tickFormat(onAxis).tickSizeOuter(0));
  const line = d3.line((_, i) => x(i), (value) => y(value)).defined((value) => value !== null);
  for (const [run, colour] of [["model", "var(--ink)"], ["circuit", "var(--helps)"]]) {
    chart.append("path").attr("d", line(lens[run][name])).style("fill", "none").style("stroke", colour).attr("stroke-width", 1.8);
    chart.append("g").selectAll("circle").data(lens[run][name]).join("circle").attr("cx", (_, i) => x(i)).attr("cy", (value) => y(value ?? y.domain()[0])).attr("r", 2.3)
      .style("fill", colour).append("title").text((value, i) => `${run}, after ${i || "the embedding"}: ${number(value)}`);
  }
  chart.append("text").attr("class", "soft").attr("x", width - right).attr("y", height - 1).attr("text-anchor", "end").text("after layers");
  return make("div", { class: "chart" }, make("div", { class: "chart-title" }, LENS[name]), chart.node());
}
