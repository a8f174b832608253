// Piano rolls on canvases: small ones on cards, a large one with bars, pitch names and a moving cursor.

import { colours, css, h, hue, surface } from "./dom.js";
import { line, player } from "./song.js";

const DARK = new Set([1, 3, 6, 8, 10]); // pitch classes of black keys

/** Lowest and highest pitch to draw: the used ones with a margin, an octave and a half at least. */
function rangeOf(notes) {
  const pitches = notes.filter((note) => !note.drums).map((note) => note.pitch);
  if (!pitches.length) return [60, 77];
  const [low, high] = [Math.min(...pitches) - 2, Math.max(...pitches) + 2];
  const spare = Math.max(0, 17 - (high - low));
  return [low - (spare >> 1), high + ((spare + 1) >> 1)];
}

/** The notes alone, into a rectangle; `lit` is the beat at which sounding ones glow. */
function drawNotes(pen, song, [x, y, width, height], [low, high], tint, lit = null) {
  const first = Math.min(0, song.bars[0].beat);
  const beat = width / (song.length - first);
  const row = height / (high - low + 1);
  const radius = Math.min(3, row / 3);
  for (const note of song.notes) {
    if (note.drums) continue;
    const on = lit !== null && lit >= note.onset && lit < note.onset + note.duration;
    const left = x + (note.onset - first) * beat;
    const wide = Math.max(1.5, note.duration * beat - (beat > 8 ? 1.5 : 0.5));
    pen.fillStyle = css(tint, on ? 1 : 0.5 + 0.45 * (note.velocity / 127));
    pen.beginPath();
    pen.roundRect(left, y + (high - note.pitch) * row + row * 0.08, wide, Math.max(2.2, row * 0.84), radius);
    pen.fill();
    if (on) {
      pen.strokeStyle = css(colours().ink, 0.9);
      pen.lineWidth = 1.5;
      pen.stroke();
    }
  }
}

const small = new Map(); // what draws each canvas that is on the page
const sizes = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.isConnected) small.get(target).draw();
    else {
      small.delete(target);
      sizes.unobserve(target);
    }
  }
});
document.addEventListener("theme", () => small.forEach((one) => one.draw()));

/** A small roll, drawn when it has its size: a canvas, and a way to colour it anew. */
export function thumbnail(song, weights = null) {
  const ready = line(song);
  const canvas = h("canvas", { class: "mini" });
  const one = {
    canvas,
    draw(now = weights) {
      weights = now;
      if (!canvas.clientWidth) return;
      const { pen, width, height } = surface(canvas);
      pen.clearRect(0, 0, width, height);
      pen.fillStyle = css(colours().line, 0.8);
      const first = Math.min(0, ready.bars[0].beat);
      for (const bar of width / ready.bars.length < 9 ? [] : ready.bars.slice(1)) {
        pen.fillRect(((bar.beat - first) / (ready.length - first)) * width, 0, 0.75, height);
      }
      drawNotes(pen, ready, [0, 3, width, height - 6], rangeOf(ready.notes), hue(weights));
    },
  };
  small.set(canvas, one);
  sizes.observe(canvas);
  return one;
}

/** The notes of many songs as a field of n by n, drawn into a pen's square. */
export function field(pen, songs, n, size, weightsAt) {
  const cell = size / n;
  songs.forEach((song, i) => {
    const [column, row] = [i % n, Math.floor(i / n)];
    const ready = line(song);
    const box = [(column + 0.14) * cell, (row + 0.2) * cell, cell * 0.72, cell * 0.6];
    drawNotes(pen, ready, box, rangeOf(ready.notes), hue(weightsAt(column, row)));
  });
}

const NAMES = 34; // width of the pitch names
const BAND = 18; // height of the bar numbers
const LEAST = 15; // width of a beat, below which a long song scrolls

/** The large roll in `host`; show(song) draws one, and while `owner` plays a cursor moves over it. */
export class Roll {
  #host;
  #canvas = h("canvas", { "aria-hidden": "true" });
  #cursor = h("i", { class: "cursor", hidden: true });
  #range = null;
  #ready = null;
  #weights = null;
  #lit = "";
  #owner;

  constructor(host, owner) {
    this.#host = host;
    this.#owner = owner;
    host.append(h("div", { class: "sheet" }, this.#canvas, this.#cursor));
    new ResizeObserver(() => this.draw()).observe(host);
    document.addEventListener("theme", () => this.draw());
    player.addEventListener("change", () => this.#follow());
  }

  show(ready, weights) {
    const range = rangeOf(ready.notes);
    const held = this.#range; // a range that still fits is kept, so that the eye can compare
    const keeps =
      held && held[0] <= range[0] && held[1] >= range[1] && held[1] - held[0] < range[1] - range[0] + 8;
    this.#range = keeps ? held : range;
    this.#ready = ready;
    this.#weights = weights;
    this.draw();
  }

  #across() {
    const first = Math.min(0, this.#ready.bars[0].beat);
    return { first, beat: (this.#canvas.clientWidth - NAMES - 6) / (this.#ready.length - first) };
  }

  draw() {
    const ready = this.#ready;
    const room = this.#host.clientWidth;
    if (!ready || !room) return;
    const beats = ready.length - Math.min(0, ready.bars[0].beat);
    const wide = Math.min(12_000, Math.max(room, NAMES + 6 + beats * LEAST));
    this.#canvas.style.width = `${wide}px`;
    const { pen, width, height } = surface(this.#canvas);
    const { first, beat } = this.#across();
    const { paper, lane, line: rule, bar: strong, faint, ink } = colours();
    const [low, high] = this.#range;
    const tall = height - BAND - 4;
    const row = tall / (high - low + 1);
    pen.fillStyle = css(paper);
    pen.fillRect(0, 0, width, height);
    pen.font = "11px Inter, 'Helvetica Neue', 'Liberation Sans', Arial, sans-serif";
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    for (let pitch = low; pitch <= high; pitch += 1) {
      const top = BAND + (high - pitch) * row;
      if (DARK.has(((pitch % 12) + 12) % 12)) {
        pen.fillStyle = css(lane);
        pen.fillRect(NAMES, top, width, row);
      }
      const tone = "C.D.EF.G.A.B"[((pitch % 12) + 12) % 12];
      if (tone === "C" || (tone === "G" && row > 5)) {
        pen.fillStyle = css(tone === "C" ? ink : faint);
        pen.fillText(`${tone}${Math.floor(pitch / 12) - 1}`, NAMES - 7, top + row / 2);
        pen.fillStyle = css(rule);
        pen.fillRect(NAMES, top + row - 0.5, width, 1);
      }
    }
    pen.textAlign = "left";
    let free = 0;
    ready.bars.forEach((bar, i) => {
      const x = NAMES + (bar.beat - first) * beat;
      pen.fillStyle = css(rule);
      for (let b = 1; b < bar.beats && beat > 10; b += 1) pen.fillRect(x + b * beat, BAND, 0.5, tall);
      pen.fillStyle = css(strong);
      pen.fillRect(x - 0.5, BAND - 4, 1, tall + 4);
      const changed = i && bar.metre !== ready.bars[i - 1].metre ? `  ${bar.metre}` : "";
      if (x >= free) {
        pen.fillStyle = css(faint);
        const label = `${i + 1 - (bar.beat >= 0 && first < 0 ? 1 : 0)}${changed}`;
        pen.fillText(label, x + 4, BAND / 2);
        free = x + 14 + pen.measureText(label).width;
      }
    });
    const sounding = this.#sounds ? player.beat : null;
    const box = [NAMES, BAND, (ready.length - first) * beat, tall];
    drawNotes(pen, ready, box, this.#range, hue(this.#weights), sounding);
  }

  get #sounds() {
    return player.playing && player.owner === this.#owner;
  }

  #follow() {
    this.#cursor.hidden = !this.#sounds;
    if (this.#sounds && !this.frame) this.frame = requestAnimationFrame(() => this.#move());
    if (!this.#sounds) this.draw();
  }

  #move() {
    this.frame = 0;
    if (!this.#sounds || !this.#ready) return;
    const at = player.beat;
    const { first, beat } = this.#across();
    const x = NAMES + (at - first) * beat;
    this.#cursor.style.transform = `translateX(${x}px)`;
    const lit = String(this.#ready.notes.findLastIndex((note) => note.onset <= at));
    if (lit !== this.#lit) {
      this.#lit = lit;
      this.draw();
      const { scrollLeft, clientWidth, scrollWidth } = this.#host;
      if (scrollWidth > clientWidth && (x < scrollLeft + NAMES || x > scrollLeft + clientWidth * 0.85))
        this.#host.scrollLeft = x - clientWidth * 0.2;
    }
    this.frame = requestAnimationFrame(() => this.#move());
  }
}
