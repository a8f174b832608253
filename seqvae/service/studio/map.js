// The map: points of the training data on the plane of the latent space's two main axes, to walk over.

import { ask, during, newest } from "./api.js";
import { colours, corner, css, hue, steer, surface } from "./dom.js";
import { LETTERS, named } from "./desk.js";

const STRIDE = 0.04; // of the map's width, for an arrow key

export function makeMap(desk, part) {
  const plane = part.plane;
  const [canvas, knob] = plane.children;
  let points = [];
  let found = []; // places of A to D
  let reach = 1;
  let at = null; // where one stands
  let near = -1; // the point that sounds
  let asked = null;

  const walk = newest(async (place, signal) => {
    const answer = await desk.verb("map", { places: [place], ...desk.how }, signal);
    near = answer.points[0];
    desk.show({ thing: answer.things[0], title: "From the map", from: ["map", ...place] });
    paint();
  });

  const locate = newest(async (items, signal) => {
    const answer = await desk.verb("map", { things: items.map(([item]) => named(item.thing)) }, signal);
    found = answer.places.map((windows, i) => ({ slot: items[i][1], windows }));
    paint();
  }, Infinity);

  async function load() {
    asked = desk.model;
    const map = await during("Drawing the map", ask(`${desk.path}/map`));
    if (!map || asked !== desk.model) return;
    points = map.points;
    const far = points.map(([x, y]) => Math.max(Math.abs(x), Math.abs(y))).sort((one, other) => one - other);
    reach = (far[Math.floor(far.length * 0.99)] ?? 1) * 1.08;
    part["map-facts"].textContent =
      `${points.length} training places, ${Math.round(map.explained * 100)} % of the variance`;
    paint();
    mark();
  }

  function mark() {
    const items = desk.slots.map((item, slot) => [item, slot]).filter(([item]) => item);
    if (asked !== desk.model || !points.length) return;
    if (items.length) locate(items);
    else {
      found = [];
      paint();
    }
  }

  const across = (value, size) => (value / reach + 1) * 0.5 * size;

  function paint() {
    const { pen, width, height } = surface(canvas);
    if (!width) return;
    const { ink, paper, faint } = colours();
    const dot = (place, radius) => {
      pen.beginPath();
      pen.arc(across(place[0], width), across(-place[1], height), radius, 0, 7);
    };
    pen.fillStyle = css(faint, 0.55);
    for (const place of points) {
      dot(place, 1.3);
      pen.fill();
    }
    if (points[near]) {
      dot(points[near], 5);
      pen.strokeStyle = css(ink);
      pen.lineWidth = 1.5;
      pen.stroke();
    }
    pen.font = "bold 11px 'Liberation Sans', Arial, sans-serif";
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    for (const { slot, windows } of found) {
      const tint = hue(corner(slot));
      pen.strokeStyle = css(tint, 0.7);
      pen.lineWidth = 1.5;
      pen.beginPath();
      windows.forEach(([x, y]) => pen.lineTo(across(x, width), across(-y, height)));
      pen.stroke();
      if (!windows.length) continue;
      dot(windows[0], 9);
      pen.fillStyle = css(tint);
      pen.fill();
      pen.fillStyle = css(paper);
      pen.fillText(LETTERS[slot], across(windows[0][0], width), across(-windows[0][1], height) + 0.5);
    }
    if (at) {
      knob.hidden = false;
      knob.style.left = `${across(at[0], 100)}%`;
      knob.style.top = `${across(-at[1], 100)}%`;
    }
  }

  function move(x, y) {
    at = [x, y].map((one) => Math.round(Math.min(reach, Math.max(-reach, one)) * 1000) / 1000);
    plane.setAttribute("aria-valuenow", Math.round((at[0] / reach) * 100));
    plane.setAttribute("aria-valuetext", `${at[0].toFixed(1)} across, ${at[1].toFixed(1)} up`);
    paint();
    return walk(at);
  }

  steer(
    plane,
    () => points.length,
    (x, y) => move((2 * x - 1) * reach, (1 - 2 * y) * reach),
    (x, y) => {
      const [from, up] = at ?? [0, 0];
      move(from + x * 2 * reach * STRIDE, up - y * 2 * reach * STRIDE);
    },
  );
  desk.on("slots", mark);
  desk.on("model", () => {
    points = [];
    found = [];
    at = null;
    near = -1;
    knob.hidden = true;
    asked = null;
    if (visible) load();
  });
  let visible = false; // the map is asked for when it is first seen
  new IntersectionObserver(
    ([entry]) => {
      visible = entry.isIntersecting;
      if (visible && desk.model && asked !== desk.model) load();
    },
    { rootMargin: "100px" },
  ).observe(plane);
  desk.origins.map = (x, y) => {
    reach = Math.max(reach, Math.abs(x), Math.abs(y));
    return move(x, y);
  };
  new ResizeObserver(paint).observe(plane);
  document.addEventListener("theme", paint);
}
