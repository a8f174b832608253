// What lies on one view's desk: a model, a shelf of things, four slots A to D, and one thing on the stage.
// A thing is {song} | {text} | {image}; each has a recipe, from which a link makes it again.

import { ask, during, say } from "./api.js";
import { corner } from "./dom.js";
import { pack, unpack } from "./state.js";

export const LETTERS = "ABCD";
const LONGEST_LINK = 24_000; // characters

/** A thing as requests name it; what was packed for a link has a title too. */
export function named(thing) {
  if (thing.song) return { song: { ...thing.song, notices: [] } };
  return thing.image ? { file: thing.image } : { text: thing.text };
}

export class Desk extends EventTarget {
  models = [];
  model = null;
  items = [];
  slots = [null, null, null, null];
  stage = null; // {thing, title, weights, item or from}; weights of the corners colour it
  origins = {}; // how to come to the stage again, by the first word of `from`
  extra = {}; // more parameters of a link
  settings = () => ({}); // of the form, as generate takes them
  #made = new Map();

  constructor(kind) {
    super();
    this.kind = kind;
    this.origins.item = (index) => this.showItem(this.items[index]);
    this.origins.thing = async (recipe, title) => {
      const [batch, k] = [recipe.slice(0, -1), recipe.at(-1)];
      this.show({ thing: (await this.#resolve(batch, k + 1))[k], title, from: ["thing", recipe, title] });
    };
  }

  tell(name) {
    this.dispatchEvent(new Event(name));
    if (name !== "stage-drawn") this.dispatchEvent(new Event("any"));
  }

  on(names, work) {
    for (const name of names.split(" ")) this.addEventListener(name, work);
  }

  get path() {
    return `/v1/models/${encodeURIComponent(this.model.name)}`;
  }

  /** How symbols are chosen when a given thing is worked on. */
  get how() {
    return this.kind.how?.(this.settings()) ?? {};
  }

  verb(name, body, signal) {
    return ask(`${this.path}/${name}`, { body, signal });
  }

  choose(model) {
    this.model = model;
    this.tell("model");
  }

  // ---------------------------------------------------------------------------------- the shelf

  async generate(settings) {
    const { n, ...rest } = settings;
    const recipe = ["g", this.model.name, rest];
    const things = await during(`Making ${n} ${this.kind.things}`, this.#resolve(recipe, n));
    if (things) this.#add(things, recipe);
    return things;
  }

  async vary(stage, amount, n = 4) {
    const seed = Math.floor(Math.random() * 1e6);
    const recipe = ["v", this.model.name, await this.#recipe(stage), amount, seed, this.how];
    const things = await during("Making more like this", this.#resolve(recipe, n, stage.thing));
    if (things) this.#add(things, recipe, `Like ${stage.title.replace(/^Like /, "")}`);
  }

  async keep(stage) {
    this.#add([stage.thing], await packed(stage), stage.title, false);
  }

  /** A file, read by the service; or undefined, and it has been said why. */
  async read(file) {
    const query = new URLSearchParams({ model: this.model.name, name: file.name });
    const thing = await during(
      `Reading ${file.name}`,
      ask(`/v1/read?${query}`, { body: file, method: "POST" }),
    );
    if (!thing) return undefined;
    const title = thing.song?.title || file.name.replace(/\.\w+$/, "");
    if (thing.notices?.length) say(`${file.name}: ${thing.notices.join("; ")}.`);
    return this.#add([thing], await packed({ thing, title }), title, false)[0];
  }

  #add(things, recipe, title, numbered = true) {
    const word = title ?? capital(this.kind.thing);
    const added = things.map((thing, k) => ({
      thing,
      recipe: [...recipe, k],
      title: numbered ? `${word} ${title ? k + 1 : this.items.length + k + 1}` : word,
    }));
    this.items.push(...added);
    this.tell("items");
    return added;
  }

  remove(item) {
    this.items = this.items.filter((one) => one !== item);
    this.slots = this.slots.map((one) => (one === item ? null : one));
    this.tell("items");
    this.tell("slots");
  }

  clear() {
    this.items = this.items.filter((one) => this.slots.includes(one));
    this.tell("items");
  }

  // ---------------------------------------------------------------------------- slots and stage

  put(item, slot) {
    this.slots = this.slots.with(slot, item);
    say(`${item.title} is now ${LETTERS[slot]}.`);
    this.tell("slots");
  }

  /** What a text is typed into, or a new thing put straight into a slot. */
  place(thing, slot, title) {
    this.slots = this.slots.with(slot, { thing, title, recipe: ["t", thing.text, 0] });
    this.tell("slots");
  }

  weightsOf(item) {
    const slot = this.slots.indexOf(item);
    return slot < 0 ? null : corner(slot);
  }

  showItem(item) {
    if (item) this.show({ thing: item.thing, title: item.title, weights: this.weightsOf(item), item });
  }

  /** Puts something on the stage; `steered` where attributes moved what was there. */
  show(stage, steered = false) {
    this.stage = { weights: null, ...stage };
    if (!steered) {
      this.base = this.stage;
      this.tell("base");
    }
    this.tell("stage");
  }

  // ---------------------------------------------------------------------------------- the link

  /** Everything as parameters of a link. */
  async link() {
    const params = new URLSearchParams();
    if (!this.model) return params;
    params.set("model", this.model.name);
    for (const [name, value] of Object.entries(this.settings())) params.set(name, value);
    const every = [...this.items, ...this.slots.filter((one) => one && !this.items.includes(one))];
    params.set("shelf", JSON.stringify(grouped(every.map((item) => item.recipe))));
    params.set("slots", this.slots.map((one) => (one ? every.indexOf(one) : "")).join("."));
    if (this.base) {
      const { item, from, title } = this.base;
      const found = every.includes(item) ? ["item", every.indexOf(item)] : from;
      params.set("on", JSON.stringify(found ?? ["thing", await this.#recipe(this.base), title]));
    }
    for (const [name, value] of Object.entries(this.extra)) params.set(name, value);
    if (String(params).length > LONGEST_LINK) {
      const short = grouped(every.map((item) => item.recipe).filter(([type]) => type !== "s"));
      params.set("shelf", JSON.stringify(short));
      for (const name of ["slots", "on"]) params.delete(name);
      params.set("short", "1");
    }
    return params;
  }

  /** What a link says was on the shelf, in the slots and on the stage. */
  async restore(params) {
    const groups = JSON.parse(params.get("shelf") ?? "[]");
    for (const group of groups) {
      const [recipe, places] = [group.slice(0, -1), group.at(-1)];
      const things = await during("Bringing back the shelf", this.#resolve(recipe, Math.max(...places) + 1));
      if (!things) continue;
      const titles = { v: "Like" };
      for (const k of places) {
        const number = this.items.length + 1;
        this.items.push({
          thing: things[k],
          recipe: [...recipe, k],
          title: things[k].title || `${titles[recipe[0]] ?? capital(this.kind.thing)} ${number}`,
        });
      }
    }
    const slots = (params.get("slots") ?? "").split(".");
    this.slots = this.slots.map((_, i) => (slots[i] ? (this.items[Number(slots[i])] ?? null) : null));
    this.items = this.items.filter(({ recipe }) => recipe[0] !== "t"); // typed into a slot, not on the shelf
    this.tell("items");
    this.tell("slots");
  }

  async restoreStage(params) {
    const [origin, ...rest] = JSON.parse(params.get("on") ?? '["item", 0]');
    await this.origins[origin]?.(...rest);
  }

  async #recipe(stage) {
    return stage.item?.recipe ?? [...(await packed(stage)), 0];
  }

  /** The first n things of a recipe without its place, or more. */
  async #resolve(recipe, n, parent = null) {
    const key = JSON.stringify(recipe);
    const known = this.#made.get(key);
    if (known?.length >= n) return known.slice(0, n);
    const [type, ...rest] = recipe;
    let things;
    if (type === "t") things = [{ text: rest[0] }];
    else if (type === "s") {
      const { file, ...found } = await unpack(rest[0]);
      things = [file ? { image: file, title: found.title } : found];
    } else {
      const path = `/v1/models/${encodeURIComponent(rest[0])}`;
      let body = { n, ...rest[1] };
      if (type === "v") {
        const [, from, amount, seed, how] = rest;
        parent ??= (await this.#resolve(from.slice(0, -1), from.at(-1) + 1)).at(-1);
        body = { n, thing: named(parent), amount, seed, ...how };
      }
      things = (await ask(`${path}/${type === "v" ? "vary" : "generate"}`, { body })).things;
    }
    this.#made.set(key, things);
    return things;
  }
}

const packed = async ({ thing, title }) => ["s", await pack({ ...named(thing), title })];

const capital = (word) => word.charAt(0).toUpperCase() + word.slice(1);

/** Recipes that differ in the last place alone, one after another, as one with the list of places. */
function grouped(recipes) {
  const groups = [];
  let last = "";
  for (const recipe of recipes) {
    const key = JSON.stringify(recipe.slice(0, -1));
    if (key === last) groups.at(-1).at(-1).push(recipe.at(-1));
    else groups.push([...recipe.slice(0, -1), [recipe.at(-1)]]);
    last = key;
  }
  return groups;
}
