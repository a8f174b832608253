// Sliders of a model's attributes, which move what is on the stage, and a form that teaches new ones.

import { ask, during, newest, say } from "./api.js";
import { h } from "./dom.js";
import { named } from "./desk.js";
import { makeTray } from "./shelf.js";

const FAR = 2; // 1 is where things with much of it are on average, -1 those with little

export function makeAttributes(desk, part) {
  const { kind } = desk;
  const sliders = new Map();

  const shift = newest(async ([base, places], signal) => {
    const body = { thing: named(base.thing), places: [places], ...desk.how };
    const found = await desk.verb("shift", body, signal);
    const words = Object.entries(places).map(([name, value]) => `${name} ${value > 0 ? "+" : ""}${value}`);
    desk.show({ ...base, thing: found.things[0], title: `${base.title}, ${words.join(", ")}` }, true);
  });

  const places = () =>
    Object.fromEntries(
      [...sliders].map(([name, { input }]) => [name, Number(input.value)]).filter(([, value]) => value),
    );

  function moved() {
    const wanted = places();
    for (const { input, out } of sliders.values()) out.textContent = signed(input.value);
    if (Object.keys(wanted).length) desk.extra.shift = JSON.stringify(wanted);
    else delete desk.extra.shift;
    if (!desk.base) return undefined;
    if (Object.keys(wanted).length) return shift([desk.base, wanted]);
    desk.show(desk.base, true);
    return undefined;
  }

  async function load() {
    const { model } = desk;
    const known = await during("Asking for attributes", ask(`${desk.path}/attributes`));
    if (!known || model !== desk.model) return;
    sliders.clear();
    part.sliders.replaceChildren(
      ...known.map(({ name, own }) => {
        const out = h("output", { textContent: "0" });
        const input = h("input", {
          type: "range",
          min: -FAR,
          max: FAR,
          step: 0.1,
          value: 0,
          name,
          oninput: moved,
        });
        sliders.set(name, { input, out });
        return h(
          "label",
          { class: "attribute", title: own ? "came with the model" : "taught here" },
          h("span", { textContent: name.replaceAll("-", " ") }),
          input,
          out,
        );
      }),
    );
    if (!known.length)
      part.sliders.append(
        h("p", {
          class: "hint",
          textContent: "No attributes yet. Teach one by a few examples without a quality and a few with it.",
        }),
      );
    part.reset.hidden = !known.length;
    desk.attributesLoaded?.();
  }

  function still() {
    for (const { input, out } of sliders.values()) {
      input.value = 0;
      out.textContent = "0";
    }
    delete desk.extra.shift;
  }

  const trays = [
    ["tray-0", "little of it"],
    ["tray-1", "much of it"],
  ].map(([name, words]) => makeTray(desk, part[name], words));
  part.teach.addEventListener("submit", async (event) => {
    event.preventDefault();
    const [first, second] = trays.map((tray) => tray.give());
    if (first.length < 2 || second.length < 2)
      return say(`It takes two ${kind.things} of each at least.`, true);
    const name = part.teach.elements.name.value;
    const body = { name, first: first.map(named), second: second.map(named) };
    const made = await during(`Learning ${name}`, ask(`${desk.path}/attributes`, { body }));
    if (!made) return undefined;
    await load();
    say(`${name} can be moved now.`);
    part.teach.reset();
    for (const tray of trays) tray.empty();
    sliders.get(name)?.input.focus();
    return undefined;
  });
  part.reset.addEventListener("click", () => {
    still();
    moved();
  });
  desk.on("model", load);
  desk.on("base", still);
  desk.restoreShift = (wanted) => {
    const set = () => {
      for (const [name, value] of Object.entries(wanted))
        if (sliders.has(name)) sliders.get(name).input.value = value;
      return moved();
    };
    if (sliders.size) return set();
    desk.attributesLoaded = () => {
      desk.attributesLoaded = null;
      set();
    };
    return undefined;
  };
}

const signed = (value) => `${value > 0 ? "+" : ""}${Number(value)}`;
