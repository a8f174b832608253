// Melodies: piano rolls that play.

import { ask, during } from "./api.js";
import { h, save } from "./dom.js";
import { named } from "./desk.js";
import { field, Roll, thumbnail } from "./roll.js";
import { facts, line, player } from "./song.js";

const KEYS = "C D♭ D E♭ E F F♯ G A♭ A B♭ B".split(" ");
const plain = (key) => key.replace("♭", "b").replace("♯", "#");
const FORMATS = [
  ["mid", "MIDI"],
  ["musicxml", "MusicXML"],
  ["wav", "WAV"],
  ["png", "PNG"],
];

export const music = {
  view: "music",
  name: "melody",
  thing: "melody",
  things: "melodies",
  act: "Hear",
  again: "as the model hears it",
  files: ".mid,.midi,.abc,.musicxml,.xml,.mxl,.krn",
  side: 4,
  face: (thing, weights) => thumbnail(thing.song, weights),
  facts: (thing) => facts(thing.song),
  field: (pen, things, n, size, weightsAt) =>
    field(
      pen,
      things.map(({ song }) => song),
      n,
      size,
      weightsAt,
    ),

  /** Heard at once; what plays already goes on in time. */
  pick(desk, item) {
    const plays = player.playing && player.owner === desk;
    desk.showItem(item);
    if (!plays) music.play(desk, 0);
  },

  play(desk, beat = 0) {
    if (desk.stage) player.play(line(desk.stage.thing.song), desk, beat);
  },

  stage(desk, host) {
    const roll = new Roll(host, desk);
    return ({ thing, weights }) => {
      const ready = line(thing.song);
      roll.show(ready, weights);
      if (player.playing && player.owner === desk) player.swap(ready);
    };
  },

  /** The metres and keys that a model may be asked for. */
  told(part, model, params) {
    const { metre, key } = part.make.elements;
    metre.replaceChildren(
      ...(model.metres.length ? model.metres : ["4/4"]).map((one) => new Option(one, one)),
    );
    metre.value = params.get("metre") ?? "4/4";
    if (metre.selectedIndex < 0) metre.selectedIndex = 0;
    if (key.options.length > 1) return;
    for (const mode of ["major", "minor"])
      for (const one of KEYS) key.add(new Option(`${one} ${mode}`, `${plain(one)} ${mode}`));
    key.value = params.get("key") ?? "";
  },

  tools(desk, part) {
    part.hear.append(
      h("button", {
        type: "button",
        class: "strong hear",
        textContent: "Play",
        onclick: () => {
          if (player.playing && player.owner === desk) player.stop();
          else music.play(desk, 0);
        },
      }),
    );
    player.addEventListener("change", () => {
      part.hear.firstChild.textContent = player.playing && player.owner === desk ? "Stop" : "Play";
    });
    for (const [format, words] of FORMATS) {
      part.downloads.append(
        h("button", {
          type: "button",
          class: "quiet",
          textContent: words,
          "aria-label": `Download as ${words}`,
          onclick: async () => {
            if (!desk.stage) return;
            const body = { thing: named(desk.stage.thing), format };
            const blob = await during(`Writing ${words}`, ask("/v1/render", { body, as: "blob" }));
            const name =
              desk.stage.title
                .toLowerCase()
                .replace(/[^a-z0-9]+/g, "-")
                .replace(/^-|-$/g, "") || "melody";
            if (blob) save(blob, `${name}.${format}`);
          },
        }),
      );
    }
  },
};
