// The square between A, B, C and D: what lies at a place of it is decoded while the pointer moves.

import { during, newest } from "./api.js";
import { css, h, hue, square, steer, surface } from "./dom.js";
import { LETTERS, named } from "./desk.js";

const STRIDE = 0.05; // of the square, for an arrow key

export function makeSquare(desk, part, { field: drawField, side }) {
  const { kind } = desk;
  const pad = part.pad;
  const [canvas, knob] = pad.children;
  let at = [0.5, 0.5];
  let around = []; // what lies on a grid of the square
  let known = "";

  const corners = () => (desk.slots.every(Boolean) ? desk.slots.map((item) => named(item.thing)) : null);

  const go = newest(async ({ place, time }, signal) => {
    const four = corners();
    if (!four) return;
    const found = await desk.verb("interpolate", { corners: four, places: [place], ...desk.how }, signal);
    const [x, y] = place;
    desk.show({ thing: found.things[0], title: titled(x, y), weights: square(x, y), from: ["square", x, y] });
    requestAnimationFrame(() => performance.measure("morph-pad", { start: time, end: performance.now() }));
  });

  const survey = newest(async ([four, key], signal) => {
    const line = Array.from({ length: side }, (_, i) => (i + 0.5) / side);
    const places = line.flatMap((y) => line.map((x) => [x, y]));
    const found = await during(
      "Looking round the square",
      desk.verb("interpolate", { corners: four, places, ...desk.how }, signal),
    );
    if (!found) return;
    known = key;
    around = found.things;
    paint();
  }, Infinity);

  function titled(x, y) {
    return `${square(x, y)
      .map((w, i) => [w, LETTERS[i]])
      .filter(([w]) => w > 0.05)
      .map(([w, letter]) => `${Math.round(w * 100)} % ${letter}`)
      .join(", ")}`;
  }

  function move(x, y, time = performance.now()) {
    at = [x, y].map((one) => Math.round(Math.min(1, Math.max(0, one)) * 1000) / 1000);
    place();
    return corners() ? go({ place: at, time }) : undefined;
  }

  function place() {
    const [x, y] = at;
    knob.style.left = `${x * 100}%`;
    knob.style.top = `${y * 100}%`;
    knob.style.background = css(hue(square(x, y)));
    pad.setAttribute("aria-valuenow", Math.round(x * 100));
    pad.setAttribute("aria-valuetext", `${Math.round(x * 100)} % across, ${Math.round(y * 100)} % down`);
  }

  async function paint() {
    const { pen, width, height } = surface(canvas);
    if (!width) return;
    const four = new OffscreenCanvas(2, 2);
    const small = four.getContext("2d");
    LETTERS.split("").forEach((_, i) => {
      small.fillStyle = css(hue([0, 1, 2, 3].map((k) => Number(k === i))), 0.3);
      small.fillRect(i % 2, i >> 1, 1, 1);
    });
    pen.imageSmoothingQuality = "high";
    pen.drawImage(four, 0.5, 0.5, 1, 1, 0, 0, width, height); // between the four pixels' middles
    if (around.length)
      await drawField(pen, around, side, width, (column, row) =>
        square((column + 0.5) / side, (row + 0.5) / side),
      );
  }

  function begin() {
    const four = corners();
    pad.classList.toggle("waiting", !four);
    part["pad-facts"].textContent = four ? "drag, or use the arrow keys" : "fill A, B, C and D";
    const key = JSON.stringify([desk.model?.name, four, desk.how]);
    if (key === known) return;
    around = [];
    known = "";
    paint();
    if (four) survey([four, key]);
  }

  steer(
    pad,
    () => true,
    move,
    (x, y) => move(at[0] + x * STRIDE, at[1] + y * STRIDE),
  );
  for (const [i, letter] of [...LETTERS].entries()) {
    const one = h("button", {
      type: "button",
      class: `letter slot-${i}`,
      textContent: letter,
      "aria-label": `Go to corner ${letter}`,
      onclick: () => move(i % 2, i >> 1),
    });
    part.corners.append(one);
  }
  part.corners.append(
    h("button", { type: "button", class: "quiet", textContent: "Middle", onclick: () => move(0.5, 0.5) }),
  );
  desk.on("slots model settings", begin);
  desk.origins.square = (x, y) => move(x, y);
  new ResizeObserver(paint).observe(pad);
  document.addEventListener("theme", () => {
    paint();
    place();
  });
  place();
}
