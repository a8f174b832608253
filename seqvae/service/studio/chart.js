// One figure over the steps of a training, as a line in an SVG with its last value in words.

import { h } from "./dom.js";

const NAMESPACE = "http://www.w3.org/2000/svg";
const [WIDE, HIGH, LEFT, FOOT, TOP] = [320, 150, 44, 22, 10];

function shape(tag, attributes, text = "") {
  const element = document.createElementNS(NAMESPACE, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}

export function makeChart(host, name, title, tint) {
  const drawing = shape("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", class: `line-${tint}` });
  const value = h("b");
  host.append(h("figure", {}, h("figcaption", {}, `${title} `, value), drawing));

  /** The figure in each row of `history` that has it. */
  function draw(history) {
    const rows = history.filter((row) => Number.isFinite(row[name]));
    const last = rows.at(-1)?.[name];
    value.textContent = last === undefined ? "not measured yet" : Number(last.toPrecision(4));
    drawing.setAttribute(
      "aria-label",
      last === undefined
        ? `${title}: not measured yet`
        : `${title} after ${rows.map((row) => `${row.step} steps ${Number(row[name].toPrecision(3))}`).join(", ")}`,
    );
    const values = rows.map((row) => row[name]);
    const most = Math.max(1e-9, ...values) * 1.05;
    const steps = Math.max(1, ...rows.map((row) => row.step));
    const x = (step) => LEFT + (step / steps) * (WIDE - LEFT - 10);
    const low = Math.min(0, ...values);
    const place = (one) => HIGH - FOOT - ((one - low) / (most - low)) * (HIGH - FOOT - TOP);
    const ticks = [low, (low + most) / 2, most].flatMap((one) => [
      shape("line", { x1: LEFT, x2: WIDE - 10, y1: place(one), y2: place(one), class: "grid" }),
      shape(
        "text",
        { x: LEFT - 6, y: place(one) + 3.5, "text-anchor": "end" },
        String(Number(one.toPrecision(2))),
      ),
    ]);
    const points = rows.map((row) => [x(row.step), place(row[name])]);
    drawing.replaceChildren(
      ...ticks,
      shape("text", { x: WIDE - 10, y: HIGH - 6, "text-anchor": "end" }, `${steps} steps`),
      shape("polyline", { points: points.map((point) => point.join(",")).join(" "), class: "curve" }),
      ...points.map(([cx, cy]) => shape("circle", { cx, cy, r: 2.6, class: "point" })),
    );
  }
  draw([]);
  return { draw };
}
