// Sentences: typed, walked between, steered.

import { css, h, hue, save } from "./dom.js";

export const text = {
  view: "text",
  name: "text",
  thing: "sentence",
  things: "sentences",
  act: "Show",
  again: "as the model sees it",
  typed: true,
  exact: true,
  side: 3,
  how({ beam, temperature, seed }) {
    if (beam) return { beam };
    return temperature ? { temperature, seed } : {};
  },

  face(thing, weights = null) {
    const element = h("span", { class: "line", textContent: thing.text || "(nothing)" });
    const draw = (now = weights) => (element.style.borderColor = now ? css(hue(now)) : "");
    draw();
    return { element, draw };
  },

  facts(thing) {
    const words = thing.text.split(/\s+/).filter(Boolean).length;
    return `${words} word${words === 1 ? "" : "s"}`;
  },

  /** Sentences in the cells of the square, broken into lines. */
  field(pen, things, n, size, weightsAt) {
    const cell = size / n;
    const high = cell < 100 ? 11 : 13;
    pen.font = `${high}px Georgia, serif`;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    things.forEach((thing, i) => {
      const [column, row] = [i % n, Math.floor(i / n)];
      const lines = [""];
      for (const word of thing.text.split(" ")) {
        const longer = `${lines.at(-1)} ${word}`.trim();
        if (lines.at(-1) && pen.measureText(longer).width > cell * 0.84) lines.push(word);
        else lines[lines.length - 1] = longer;
      }
      pen.fillStyle = css(hue(weightsAt(column, row)));
      const most = Math.floor((cell * 0.9) / (high * 1.3));
      lines
        .slice(0, most)
        .forEach((words, k, { length }) =>
          pen.fillText(
            words,
            (column + 0.5) * cell,
            (row + 0.5) * cell + (k - (length - 1) / 2) * high * 1.3,
            cell * 0.94,
          ),
        );
    });
  },

  pick: (desk, item) => desk.showItem(item),

  stage(desk, host) {
    const words = h("blockquote", { "aria-live": "polite" });
    host.append(words);
    return ({ thing }) => (words.textContent = thing.text || "(nothing)");
  },

  tools(desk, part) {
    part.downloads.append(
      h("button", {
        type: "button",
        class: "quiet",
        textContent: "Shelf as .txt",
        onclick: () =>
          save(
            new Blob([desk.items.map(({ thing }) => `${thing.text}\n`).join("")], { type: "text/plain" }),
            "sentences.txt",
          ),
      }),
    );
  },
};
