// The shelf of things and the slots A to D: what is dragged, and the buttons and keys that do the same.

import { say } from "./api.js";
import { corner, h } from "./dom.js";
import { LETTERS } from "./desk.js";

let dragged = null; // the item under way

/** Makes an element take items and files; take(items, slot) gets as many as there are. */
export function target(element, desk, take) {
  element.addEventListener("dragover", (event) => {
    if (!dragged && !event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    event.stopPropagation();
    element.classList.add("over");
  });
  element.addEventListener("dragleave", () => element.classList.remove("over"));
  element.addEventListener("drop", async (event) => {
    event.preventDefault();
    event.stopPropagation();
    element.classList.remove("over");
    const items = dragged ? [dragged] : [];
    for (const file of dragged ? [] : event.dataTransfer.files) {
      const item = await desk.read(file);
      if (item) items.push(item);
    }
    if (items.length) take(items);
  });
}

export function makeShelf(desk, part) {
  const { kind } = desk;
  part.generate.textContent = `New ${kind.things}`;
  part["shelf-hint"].textContent =
    `Drag a ${kind.thing} to a letter, onto another one, or press A to D on it; drop files anywhere here.`;
  part.make.addEventListener("submit", async (event) => {
    event.preventDefault();
    await desk.generate(desk.settings());
    const seed = part.make.elements.seed; // the next press makes new ones
    seed.value = Number(seed.value) + 1;
  });
  part.clear.addEventListener("click", () => desk.clear());
  const cards = new Map();

  function card(item) {
    const face = kind.face(item.thing);
    const letters = [...LETTERS].map((letter, slot) =>
      h("button", {
        type: "button",
        class: `letter slot-${slot}`,
        textContent: letter,
        "aria-label": `Put ${item.title} into ${letter}`,
        "aria-pressed": "false",
        onclick: () => desk.put(item, slot),
      }),
    );
    const element = h(
      "li",
      { class: "card", draggable: true },
      h(
        "button",
        {
          type: "button",
          class: "face",
          "aria-label": `${kind.act} ${item.title}`,
          "aria-keyshortcuts": "A B C D V Delete",
          onclick: () => kind.pick(desk, item),
        },
        face.canvas ?? face.element,
        h("span", { class: "name", textContent: item.title }),
      ),
      h(
        "span",
        { class: "row" },
        ...letters,
        h("button", {
          type: "button",
          class: "quiet like",
          textContent: "≈",
          title: "More like this",
          "aria-label": `More like ${item.title}`,
          onclick: () => desk.vary(item.stage ?? { ...item, item }, Number(part.amount.value)),
        }),
        h("button", {
          type: "button",
          class: "quiet",
          textContent: "×",
          title: "Take off the shelf",
          "aria-label": `Take ${item.title} off the shelf`,
          onclick: () => off(item),
        }),
      ),
    );
    element.addEventListener("dragstart", (event) => {
      dragged = item;
      event.dataTransfer.effectAllowed = "copy";
      event.dataTransfer.setData("text/plain", item.title);
    });
    element.addEventListener("dragend", () => (dragged = null));
    element.addEventListener("keydown", (event) => keys(event, item, element));
    target(element, desk, ([one]) => {
      if (one === item) return;
      desk.put(one, 0);
      desk.put(item, 1);
      say(`${one.title} is A and ${item.title} is B.`);
    });
    return { element, face, letters };
  }

  function off(item) {
    const next = cards.get(item).element.nextElementSibling ?? cards.get(item).element.previousElementSibling;
    desk.remove(item);
    next?.querySelector(".face").focus();
  }

  function keys(event, item, element) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const slot = LETTERS.indexOf(event.key.toUpperCase());
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key.length === 1 && slot >= 0) desk.put(item, slot);
    else if (event.key === "v" || event.key === "V") desk.vary({ ...item, item }, Number(part.amount.value));
    else if (event.key === "Delete") off(item);
    else if (step)
      (step > 0 ? element.nextElementSibling : element.previousElementSibling)
        ?.querySelector(".face")
        .focus();
    else return;
    event.preventDefault();
  }

  function draw() {
    for (const [item, { element }] of cards) {
      if (desk.items.includes(item)) continue;
      element.remove();
      cards.delete(item);
    }
    desk.items.forEach((item) => {
      if (cards.has(item)) return;
      cards.set(item, card(item));
      part.cards.append(cards.get(item).element);
    });
    mark();
  }

  function mark() {
    for (const [item, { element, face, letters }] of cards) {
      const slot = desk.slots.indexOf(item);
      if (element.dataset.slot !== String(slot)) {
        element.dataset.slot = slot;
        face.draw(slot < 0 ? null : corner(slot));
      }
      letters.forEach((letter, i) => letter.setAttribute("aria-pressed", String(desk.slots[i] === item)));
      element.classList.toggle("on", desk.stage?.thing === item.thing);
    }
  }
  desk.on("items", draw);
  desk.on("slots stage", mark);
  target(part.cards.closest(".panel"), desk, (items) => desk.showItem(items.at(-1)));
}

/** One slot in its place: what is in it, and where a file is dropped or chosen, or a text typed. */
export function makeSlot(desk, place) {
  const { kind } = desk;
  const slot = Number(place.dataset.slot);
  const letter = LETTERS[slot];
  const body = h("div", { class: "held" });
  place.className = `slot slot-${slot}`;
  place.append(h("b", { class: "letter", textContent: letter, "aria-hidden": "true" }), body);
  let field = null;
  if (kind.typed) {
    field = h("textarea", {
      rows: 2,
      maxLength: 2000,
      "aria-label": `Sentence ${letter}`,
      placeholder: "type a sentence",
    });
    field.addEventListener("change", () => {
      const text = field.value.trim();
      if (text) desk.place({ text }, slot, text.slice(0, 30));
    });
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey) return;
      event.preventDefault();
      field.dispatchEvent(new Event("change"));
    });
    body.append(field);
  } else {
    const file = h("input", {
      type: "file",
      accept: kind.files,
      "aria-label": `Open a file as ${letter}`,
      onchange: async () => {
        const item = file.files[0] && (await desk.read(file.files[0]));
        if (item) desk.put(item, slot);
        file.value = "";
      },
    });
    place.append(h("span", { class: "row" }, h("label", { class: "file" }, "Open a file", file)));
  }
  target(place, desk, (items) =>
    items.slice(0, 2).forEach((item, i) => desk.put(item, Math.min(3, slot + i))),
  );
  let shown;
  desk.on("slots", () => {
    const item = desk.slots[slot];
    if (item === shown) return;
    shown = item;
    if (field) {
      if (document.activeElement !== field || field.value.trim() !== item?.thing.text)
        field.value = item?.thing.text ?? "";
      return;
    }
    if (!item) return body.replaceChildren(h("p", { class: "hint", textContent: "empty" }));
    const face = kind.face(item.thing, corner(slot));
    body.replaceChildren(
      h(
        "button",
        {
          type: "button",
          class: "face",
          "aria-label": `${kind.act} ${letter}: ${item.title}`,
          onclick: () => kind.pick(desk, item),
        },
        face.canvas ?? face.element,
        h("span", { class: "name", textContent: item.title }),
      ),
    );
  });
}

/** Every thing that is dropped into a tray, for teaching attributes: give() returns them. */
export function makeTray(desk, place, words) {
  const { kind } = desk;
  if (kind.typed) {
    const field = h("textarea", { rows: 4, required: true });
    place.append(
      h("label", {}, words, h("span", { class: "facts", textContent: "one a line, two at least" }), field),
    );
    return {
      give: () =>
        field.value
          .split("\n")
          .map((text) => text.trim())
          .filter(Boolean)
          .map((text) => ({ text })),
      empty: () => (field.value = ""),
    };
  }
  const held = [];
  const count = h("output", { textContent: "0" });
  const faces = h("div", { class: "faces" });
  const take = (items) => {
    for (const item of items) {
      held.push(item.thing);
      const face = kind.face(item.thing);
      faces.append(face.canvas ?? face.element);
    }
    count.textContent = held.length;
  };
  place.className = "tray";
  place.append(
    h("p", {}, words, " ", count),
    faces,
    h("button", {
      type: "button",
      class: "quiet",
      textContent: "Add what is on the stage",
      "aria-label": `Add what is on the stage to ${words}`,
      onclick: () => desk.stage && take([desk.stage]),
    }),
  );
  target(place, desk, take);
  return {
    give: () => held,
    empty: () => {
      held.length = 0;
      faces.replaceChildren();
      count.textContent = 0;
    },
  };
}
