// Where the graph's nodes stand: two rows a layer, heads and the MLP above them, from the input up.

const NODE_SIZE = { width: 46, height: 19, gap: 12 };

function rowOf(id) {
  if (id === "input") return -1;
  if (id === "logits") return 2 * shape.layers;
  const node = parse(id);
  return 2 * node.layer + (node.granularity === "mlp_blocks" ? 1 : 0);
}

// Places by node, and the size of the drawing; rows are put in order by the means of their neighbours.
function laidOut(ids, edges, least) {
  const rows = d3.groups(ids, rowOf).sort((a, b) => a[0] - b[0]).map(([row, members]) => ({ row, members }));
  const step = NODE_SIZE.width + NODE_SIZE.gap;
  const width = Math.max(least, (d3.max(rows, (row) => row.members.length) ?? 1) * step + 40);
  const x = new Map();
  const spread = (members) => {
    const pace = Math.min(110, Math.max(step, (width - 160) / members.length));
    members.forEach((id, i) => x.set(id, width / 2 + (i - (members.length - 1) / 2) * pace));
  };
  rows.forEach((row) => spread(row.members));
  const near = new Map(ids.map((id) => [id, []]));
  for (const edge of edges) {
    near.get(edge.reader).push(edge.writer);
    near.get(edge.writer).push(edge.reader);
  }
  for (let sweep = 0; sweep < 10; sweep++) {
    for (const row of sweep % 2 ? [...rows].reverse() : rows) {
      const pull = new Map(row.members.map((id) => [id, d3.mean(near.get(id), (other) => x.get(other)) ?? x.get(id)]));
      row.members.sort((a, b) => pull.get(a) - pull.get(b) || d3.ascending(a, b));
      spread(row.members);
    }
  }
  // A row on its own stands to the side on which it is drawn, so that long edges pass by it.
  const alone = rows.filter((row) => row.members.length === 1 && row.row >= 0 && row.row < 2 * shape.layers);
  alone.forEach((row, i) => x.set(row.members[0], width / 2 + (i % 2 ? 1 : -1) * Math.min(90, width / 8)));
  const heights = new Map();
  let y = 16;
  for (const [i, row] of [...rows].reverse().entries()) {
    if (i) y += rows[rows.length - i].row % 2 === 1 && row.row === rows[rows.length - i].row - 1 ? 32 : 44;
    heights.set(row.row, y);
  }
  return { places: new Map(ids.map((id) => [id, [x.get(id), heights.get(rowOf(id))]])), heights, width, height: y + 20 };
}

function edgePath([fromX, fromY], [toX, toY], across) {
  const half = NODE_SIZE.height / 2, start = fromY - half, end = toY + half, bend = (start - end) / 2.2;
  return `M${fromX},${start}C${fromX + across},${start - bend} ${toX + across},${end + bend} ${toX},${end}`;
}
