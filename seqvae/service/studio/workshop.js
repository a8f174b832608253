// A view over one kind of things: the desk with its shelf, stage, path, square, attributes and map.

import { say, during } from "./api.js";
import { makeAttributes } from "./attributes.js";
import { Desk, named } from "./desk.js";
import { css, fill, h, hue, parts } from "./dom.js";
import { makeMap } from "./map.js";
import { makePath } from "./path.js";
import { makeShelf, makeSlot } from "./shelf.js";
import { makeSquare } from "./square.js";
import { keep } from "./state.js";

/** The form's values: numbers as numbers, what is empty left out. */
function settingsOf(form) {
  const found = {};
  for (const { name, type, value } of form.elements)
    if (name && value !== "") found[name] = type === "number" || /^\d+$/.test(value) ? Number(value) : value;
  return found;
}

/** Fills `root` with the view; `models` are those of its kind. */
export async function openWorkshop(root, kind, models, params) {
  root.append(fill("workshop"));
  root.firstElementChild.classList.add(kind.view);
  const part = parts(root);
  const desk = new Desk(kind);
  const fit = buildForm(desk, part, kind);
  makeShelf(desk, part);
  for (const place of root.querySelectorAll("[data-slot]")) makeSlot(desk, place);
  const path = makePath(desk, part);
  makeSquare(desk, part, kind);
  makeAttributes(desk, part);
  makeMap(desk, part);
  makeStage(desk, part, kind);
  fit(params, path.fit);
  desk.offer = (all, wanted) => {
    const fitting = all.filter((model) => model.kind === kind.name);
    part.model.replaceChildren(...fitting.map((model) => new Option(model.name, model.name)));
    desk.models = fitting;
    const model = fitting.find(({ name }) => name === wanted) ?? fitting[0];
    if (wanted && model && model.name !== wanted)
      say(`There is no model ${wanted} any more; this is ${model.name}.`, true);
    if (!model) {
      part.title.textContent = `This server has no model of ${kind.things}`;
      return false;
    }
    part.model.value = model.name;
    kind.told?.(part, model, params);
    desk.choose(model);
    return true;
  };
  part.model.addEventListener("change", () => {
    const model = desk.models.find(({ name }) => name === part.model.value);
    const { bars } = part.make.elements;
    if (bars && model.bars > Number(bars.value)) bars.value = model.bars; // all that it takes at once
    kind.told?.(part, model, new URLSearchParams(settingsOf(part.make)));
    desk.choose(model);
    if (kind.exact) desk.fresh();
    say(model.what);
  });
  desk.fresh = async () => {
    desk.items = [];
    desk.slots = [null, null, null, null];
    desk.tell("items");
    desk.tell("slots");
    const things = await desk.generate(desk.settings());
    if (!things) return;
    desk.slots = desk.slots.map((_, i) => desk.items[i] ?? null);
    desk.tell("slots");
    desk.showItem(desk.items[0]);
  };
  if (desk.offer(models, params.get("model"))) {
    if (params.has("shelf")) {
      await desk.restore(params);
      await desk.restoreStage(params);
      const shift = () => params.has("shift") && desk.restoreShift(JSON.parse(params.get("shift")));
      if (desk.base) shift();
      else desk.addEventListener("base", shift, { once: true }); // the way is still being found
    } else await desk.fresh();
  }
  desk.on("any", () => !root.hidden && keep(kind.view, () => desk.link()));
  return desk;
}

function buildForm(desk, part, kind) {
  part.fields.append(fill(`fields-${kind.view}`));
  desk.settings = () => settingsOf(part.make);
  let before = "";
  part.make.addEventListener("change", () => {
    const how = JSON.stringify(desk.how);
    if (how !== before) desk.tell("settings");
    else desk.tell("any");
    before = how;
  });
  return (params, other) => {
    for (const [name, value] of params) {
      const field = part.make.elements[name];
      if (field && value !== "") field.value = value;
    }
    if (other && params.has("fit")) other.value = params.get("fit");
    before = JSON.stringify(desk.how);
  };
}

function makeStage(desk, part, kind) {
  const draw = kind.stage(desk, part.stage);
  desk.on("stage", () => {
    const { thing, title, weights } = desk.stage;
    part.title.textContent = title;
    part.facts.textContent = kind.facts?.(thing) ?? "";
    part.notices.replaceChildren(
      ...(thing.notices ?? thing.song?.notices ?? [])
        .slice(0, 4)
        .map((said) => h("li", { textContent: said })),
    );
    part.stage.closest(".panel").style.setProperty("--hue", weights ? css(hue(weights)) : "");
    draw(desk.stage);
  });
  const amount = () => Number(part.amount.value);
  part.amount.addEventListener("input", () => (part["amount-out"].textContent = amount().toFixed(2)));
  part.more.addEventListener("click", () => desk.stage && desk.vary(desk.stage, amount()));
  part.keep.addEventListener("click", () => desk.stage && desk.keep(desk.stage));
  part.again.addEventListener("click", async () => {
    if (!desk.stage) return;
    const { thing, title, weights } = desk.stage;
    const found = await during(
      "Asking the model",
      desk.verb("reconstruct", { thing: named(thing), ...desk.how }),
    );
    if (found) desk.show({ thing: found.things[0], title: `${title}, ${kind.again}`, weights });
  });
  part.again.textContent = `As the model ${kind.name === "melody" ? "hears" : "sees"} it`;
  kind.tools?.(desk, part);
}
