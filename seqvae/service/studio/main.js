// The page: tabs, theme, link, player; each view is opened when it is first looked at.

import { ask, during, say } from "./api.js";
import { themeChanged } from "./dom.js";
import { music } from "./music.js";
import { player } from "./song.js";
import { keep, read, write } from "./state.js";
import { openWorkshop } from "./workshop.js";

const $ = (id) => document.getElementById(id);
const tabs = [...document.querySelectorAll("[role=tab]")];
const opened = {}; // views by name: {link(), offer?(), desk?}
let current = "music";
let models = null;

/** The models there are; asked anew where one is missed. */
async function askModels() {
  models = (await during("Asking for the models", ask("/v1/models", { patience: 60 }))) ?? [];
  return models;
}

async function open(view, params) {
  const root = $(`view-${view}`);
  if (view === "training") {
    const { openTraining } = await import("./training.js");
    return openTraining(root, {
      useModel,
      wanted: params.get("job"),
      models: async () => models ?? askModels(),
    });
  }
  const kind =
    view === "music"
      ? music
      : view === "text"
        ? (await import("./text.js")).text
        : (await import("./images.js")).images;
  const wanted = params.get("model");
  if (!models || (wanted && !models.some(({ name }) => name === wanted))) await askModels();
  return openWorkshop(root, kind, models, params);
}

async function go(view, params = new URLSearchParams()) {
  current = view;
  for (const tab of tabs) {
    const chosen = tab.id === `tab-${view}`;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    $(tab.getAttribute("aria-controls")).hidden = !chosen;
  }
  document.body.dataset.view = view;
  opened[view] ??= open(view, params);
  const here = await opened[view];
  here.seen?.();
  if (current === view) keep(view, () => here.link());
  return here;
}

/** Takes a trained model into the view of its kind. */
async function useModel(name) {
  const model = (await askModels()).find((one) => one.name === name);
  if (!model) return say(`There is no model ${name} yet.`, true);
  const view = { melody: "music", text: "text", image: "images" }[model.kind];
  const params = new URLSearchParams({ model: name });
  const known = Boolean(opened[view]);
  const desk = await go(view, params);
  if (known) {
    desk.offer(models, name);
    await desk.fresh();
  }
  return say(`This is ${name}: ${model.what}`);
}

for (const [i, tab] of tabs.entries()) {
  tab.addEventListener("click", () => go(tab.id.slice(4)));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: -1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const next = tabs.at(step % tabs.length);
    next.focus();
    go(next.id.slice(4));
  });
}

// ------------------------------------------------------------------------------------------- player

const playing = async () => (await opened.music) ?? go("music");

async function toggle() {
  if (player.playing) return player.stop();
  if (player.line && player.owner !== (await opened.music)) return player.play(player.line, player.owner);
  return music.play(await playing());
}

$("play").addEventListener("click", toggle);
addEventListener("keydown", (event) => {
  const busy = event.target.closest("input, textarea, select, button, summary, a, dialog, [role=slider]");
  if (event.key !== " " || busy) return;
  event.preventDefault();
  toggle();
});
$("loop").addEventListener("change", () => (player.loop = $("loop").checked));
$("instrument").addEventListener("change", () => (player.instrument = $("instrument").value));
$("volume").addEventListener("input", () => (player.level = Number($("volume").value)));
let clock = 0;
player.addEventListener("change", () => {
  const on = player.playing;
  document.body.classList.toggle("playing", on);
  $("play").setAttribute("aria-pressed", String(on));
  $("play").setAttribute("aria-label", on ? "Stop" : "Play");
  $("hearing").textContent = on
    ? (player.owner?.stage?.title ?? player.owner?.title ?? "Playing")
    : "Nothing is playing";
  clearInterval(clock);
  if (on) clock = setInterval(where, 120);
  where();
});

function where() {
  const at = player.beat;
  if (at === null) return ($("where").textContent = "");
  const { bars } = player.line;
  const bar = bars.findLastIndex(({ beat }) => beat <= at + 1e-9);
  return ($("where").textContent = `bar ${bar + 1} of ${bars.length}`);
}

// -------------------------------------------------------------------------------- theme, link, start

const THEMES = ["auto", "light", "dark"];

function theme(name) {
  document.documentElement.dataset.theme = name;
  $("theme").textContent = `Theme: ${name}`;
  themeChanged();
}
$("theme").addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
  localStorage.setItem("theme", next);
  theme(next);
});
theme(THEMES.find((name) => name === localStorage.getItem("theme")) ?? "auto");

$("share").addEventListener("click", async () => {
  const link = await (await opened[current]).link();
  write(current, link);
  const brings = link.has("short")
    ? "the files you opened are too long for it and stay behind."
    : "it brings back what is here.";
  try {
    await navigator.clipboard.writeText(location.href); // not there on plain http at a name other than localhost
    say(`The link is copied; ${brings}`);
  } catch {
    say(`The link is in the address bar; ${brings}`);
  }
});

addEventListener("dragover", (event) => event.preventDefault()); // a file dropped beside a target opens nothing
addEventListener("drop", (event) => event.preventDefault());

const start = read();
const known = tabs.some((tab) => tab.id === `tab-${start.view}`);
go(known ? start.view : "music", start.params).then(() => {
  performance.mark("first-picture");
  document.body.dataset.ready = "";
});
