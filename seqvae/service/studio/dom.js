// Elements made in one line, and the colours of the stylesheet as numbers for canvases.

export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name in element && !name.startsWith("aria")) element[name] = value;
    else if (value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** The elements marked data-part inside `root`, by name. */
export function parts(root) {
  return Object.fromEntries([...root.querySelectorAll("[data-part]")].map((one) => [one.dataset.part, one]));
}

export function fill(id) {
  return document.getElementById(id).content.cloneNode(true);
}

let palette = null;

/** The stylesheet's colours as [r, g, b]: paper, ink, lane, line, bar, and the corners' a, b, c, d. */
export function colours() {
  if (palette) return palette;
  const probe = h("i");
  document.body.append(probe);
  const read = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe)
      .color.match(/[\d.]+/g)
      .slice(0, 3)
      .map(Number);
  };
  const names = ["paper", "ink", "faint", "lane", "line", "bar", "a", "b", "c", "d"];
  palette = Object.fromEntries(names.map((name) => [name, read(name)]));
  probe.remove();
  return palette;
}

export function themeChanged() {
  palette = null;
  document.dispatchEvent(new Event("theme"));
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", themeChanged);

export const css = ([r, g, b], alpha = 1) => `rgba(${r | 0}, ${g | 0}, ${b | 0}, ${alpha})`;

/** A colour between the corners: weights of a, b, c, d that sum to 1; null is the ink. */
export function hue(weights) {
  const { a, b, c, d, ink } = colours();
  if (!weights) return ink;
  const mixed = [0, 1, 2].map((i) =>
    [a, b, c, d].reduce((sum, one, k) => sum + one[i] * (weights[k] ?? 0), 0),
  );
  const grey = (mixed[0] + mixed[1] + mixed[2]) / 3;
  const vivid = 1 + 0.9 * (1 - Math.max(...weights)); // a mixture is greyer than what it is of
  return mixed.map((one) => Math.min(255, Math.max(0, grey + (one - grey) * vivid)));
}

export const corner = (slot) => [0, 1, 2, 3].map((k) => Number(k === slot));
export const square = (x, y) => [(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y];

/** A canvas made as large as it is shown; its context counts in CSS pixels. */
export function surface(canvas, width = canvas.clientWidth, height = canvas.clientHeight) {
  const scale = Math.min(2, devicePixelRatio || 1);
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  return { pen, width, height };
}

/**
 * A plane that is steered, while `ready()`: `to` is told the shares of its width and height at which a pointer
 * presses or drags, and when; `by` the arrow keys' steps to the right and down, four with shift.
 */
export function steer(plane, ready, to, by) {
  const point = (event) => {
    const box = plane.getBoundingClientRect();
    to((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height, event.timeStamp);
  };
  plane.addEventListener("pointerdown", (event) => {
    if (event.button || !ready()) return;
    plane.setPointerCapture(event.pointerId);
    plane.focus();
    point(event);
    event.preventDefault();
  });
  plane.addEventListener("pointermove", (event) => plane.hasPointerCapture(event.pointerId) && point(event));
  plane.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step || !ready()) return;
    event.preventDefault();
    by(...step.map((one) => one * (event.shiftKey ? 4 : 1)));
  });
}

export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

export const bytesOf = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
