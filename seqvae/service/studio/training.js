// Training on one's own files: a folder goes up, figures come down as they are measured, each with a sample.

import { ask, during, events, say, tell } from "./api.js";
import { makeChart } from "./chart.js";
import { fill, h, parts, save } from "./dom.js";
import { thumbnail } from "./roll.js";
import { line, player } from "./song.js";
import { keep } from "./state.js";

const FIT = /\.(midi?|abc|musicxml|xml|mxl|krn|txt|jsonl|csv|tsv|gz|png|jpe?g|npz)$/i;
const CHARTS = [
  ["nll", "nll, nats", "a"],
  ["kl", "KL, nats", "b"],
  ["active_units", "active units", "c"],
];
const STATES = {
  queued: "waits for its turn",
  running: "at work",
  done: "done",
  failed: "failed",
  cancelled: "cancelled",
};
const over = (job) => ["done", "failed", "cancelled"].includes(job.state);

export async function openTraining(root, { useModel, models, wanted }) {
  root.append(fill("training"));
  const part = parts(root);
  const form = part.form;
  let files = [];
  const jobs = new Map();
  let watched = null;
  let listening = null;
  const charts = CHARTS.map(([name, title, tint]) => makeChart(part.charts, name, title, tint));

  // -------------------------------------------------------------------------------- files and form

  function choose(found) {
    files = found.filter((file) => FIT.test(file.name));
    const left = found.length - files.length;
    const count = `${files.length} file${files.length === 1 ? "" : "s"}`;
    const size = files.reduce((sum, file) => sum + file.size, 0);
    part.chosen.textContent = files.length
      ? `${count}, ${(size / 1e6).toFixed(1)} MB${left ? `; ${left} of other kinds left out` : ""}`
      : "None of these files can be learnt from";
  }
  for (const name of ["folder", "files"])
    form.elements[name].addEventListener("change", (event) => choose([...event.target.files]));
  part.drop.addEventListener("dragover", () => part.drop.classList.add("over"));
  part.drop.addEventListener("dragleave", () => part.drop.classList.remove("over"));
  part.drop.addEventListener("drop", async (event) => {
    event.preventDefault();
    part.drop.classList.remove("over");
    const items = [...event.dataTransfer.items].filter(({ kind }) => kind === "file");
    const held = items.map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile()); // now, or they are gone
    choose((await Promise.all(held.map((one) => (one instanceof File ? [one] : within(one))))).flat());
  });

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!files.length) return say("Choose a folder or files first.", true);
    const settings = Object.fromEntries(
      (form.elements.settings.value.match(/\S+=\S+/g) ?? []).map((one) => one.split(/=(.*)/s)),
    );
    for (const name of ["steps", "evaluate_every"])
      if (form.elements[name].value) settings[name] = Number(form.elements[name].value);
    part.start.disabled = true;
    const job = await during("Uploading", send(settings));
    part.start.disabled = false;
    part.upload.hidden = true;
    if (!job) return undefined;
    say("The training is handed in.");
    know(job);
    return watch(job.id);
  });

  async function send(settings) {
    const corpus = await ask("/v1/corpora", { method: "POST" });
    part.upload.hidden = false;
    for (const [i, file] of files.entries()) {
      part.upload.value = i / files.length;
      const name = (file.webkitRelativePath || file.name).slice(-200);
      say(`Uploading ${i + 1} of ${files.length}: ${file.name}`);
      await ask(`/v1/corpora/${corpus.id}/files?${new URLSearchParams({ name })}`, {
        body: file,
        patience: 20,
      });
    }
    const { recipe, start } = form.elements;
    const body = {
      kind: "train",
      corpus: corpus.id,
      settings,
      recipe: recipe.value || null,
      start: start.value || null,
    };
    return ask("/v1/jobs", { body });
  }

  // -------------------------------------------------------------------------------- the list of work

  function know(job) {
    if (job.id === watched && over(job) && !over(jobs.get(job.id) ?? job))
      say(`The work is ${STATES[job.state]}.`);
    jobs.set(job.id, job);
    part.none.hidden = jobs.size > 0;
    const rows = [...jobs.values()].sort((one, other) => other.created - one.created);
    part.jobs.replaceChildren(
      ...rows.map((one) =>
        h(
          "li",
          { class: one.state },
          h(
            "button",
            { type: "button", "aria-pressed": String(one.id === watched), onclick: () => watch(one.id) },
            h("b", { textContent: one.kind === "train" ? "Training" : "Files of a way" }),
            h("span", {
              class: "facts",
              textContent: [STATES[one.state], counted(one), when(one.created)].filter(Boolean).join(" · "),
            }),
            h("progress", { max: Math.max(1, one.steps), value: one.step, "aria-hidden": "true" }),
          ),
        ),
      ),
    );
    if (job.id === watched) draw(job);
  }

  async function watch(id) {
    watched = id;
    listening?.abort();
    listening = new AbortController();
    part.watch.hidden = false;
    if (!root.hidden) keep("training", link);
    part.samples.replaceChildren();
    shown.clear();
    know(jobs.get(id));
    const { signal } = listening;
    try {
      for await (const { event, data } of events(`/v1/jobs/${id}/events`, signal))
        if (event === "job") know(data);
    } catch (fault) {
      if (signal.aborted) return;
      tell(fault);
    }
    if (signal.aborted || over(jobs.get(id))) return;
    setTimeout(() => !signal.aborted && watched === id && again(id), 2000); // the connection was lost
  }

  async function again(id) {
    const job = await during("Asking for the training", ask(`/v1/jobs/${id}`));
    if (!job) return;
    jobs.set(id, job);
    watch(id);
  }

  // -------------------------------------------------------------------------------- the watched one

  const shown = new Set(); // names of files whose sample is on the page

  function draw(job) {
    const train = job.kind === "train";
    part["job-title"].textContent = train ? `Training ${job.id.slice(0, 8)}` : "Files of a way";
    const state = job.state === "failed" ? `failed: ${job.error}` : STATES[job.state];
    part["job-facts"].textContent = [state, counted(job), job.message].filter(Boolean).join(" · ");
    part["job-facts"].classList.toggle("fault", job.state === "failed");
    part.bar.max = Math.max(1, job.steps);
    part.bar.value = job.step;
    part.cancel.hidden = over(job);
    part.delete.hidden = !over(job);
    part.use.hidden = !job.model;
    part.charts.hidden = !train;
    for (const chart of charts) chart.draw(job.history);
    samples(job.files);
    const results = [...job.files].sort((one, other) => one.startsWith("step-") - other.startsWith("step-"));
    part["files-head"].textContent = `All files (${results.length})`;
    part.files.replaceChildren(
      ...results.map((name) =>
        h("button", {
          type: "button",
          class: "quiet",
          textContent: name,
          "aria-label": `Download ${name}`,
          onclick: () => download(name),
        }),
      ),
    );
  }

  const fileOf = (name) => `/v1/jobs/${watched}/files/${encodeURIComponent(name)}`;

  async function download(name) {
    const blob = await during(`Fetching ${name}`, ask(fileOf(name), { as: "blob" }));
    if (blob) save(blob, name);
  }

  /** One row for each evaluation, newest first, with what can be heard, seen or read of it. */
  function samples(names) {
    const groups = Map.groupBy(
      names.filter((name) => /step-\d+|\d+-of-\d+|journey/.test(name) && /\.(mid|png|txt)$/.test(name)),
      (name) => name.match(/step-(\d+)/)?.[1] ?? "the way",
    );
    for (const [step, every] of groups) {
      const fresh = every.filter((name) => !shown.has(name));
      if (!fresh.length) continue;
      fresh.forEach((name) => shown.add(name));
      const label = /^\d+$/.test(step) ? `step ${Number(step)}` : step;
      let row = [...part.samples.children].find((one) => one.dataset.step === step);
      if (!row) {
        row = h("li", { data: { step } }, h("b", { textContent: label }), h("div", { class: "row" }));
        part.samples.prepend(row);
      }
      const some = fresh.some((name) => name.endsWith(".mid"))
        ? fresh.filter((name) => name.endsWith(".mid"))
        : fresh;
      const made = (name) => name.includes("sample"); // what is new comes first
      some.sort((one, other) => made(other) - made(one));
      const chosen =
        groups.size > 1 || /^\d+$/.test(step) ? some.filter((name) => !/[4-9]\.\w+$/.test(name)) : some;
      for (const name of chosen) row.lastChild.append(sample(name, label));
    }
  }

  function sample(name, label) {
    const title = name
      .replace(/^step-\d+-/, "")
      .replace(/\.\w+$/, "")
      .replaceAll(/[-_]/g, " ");
    const face = h("span", { class: "held" });
    const play = h(
      "button",
      {
        type: "button",
        class: "sample",
        "aria-label": `${name.endsWith(".mid") ? "Hear" : "Show"} ${title} of ${label}`,
      },
      face,
      h("span", { class: "name", textContent: title }),
    );
    const job = watched;
    let song = null;

    async function look() {
      const blob = await during(`Fetching ${title}`, ask(fileOf(name), { as: "blob" }));
      if (!blob || watched !== job) return;
      if (name.endsWith(".txt"))
        face.replaceChildren(h("span", { class: "prose", textContent: (await blob.text()).slice(0, 2000) }));
      else if (name.endsWith(".png"))
        face.replaceChildren(h("img", { src: URL.createObjectURL(blob), alt: title }));
      else if (!sounds(new Uint8Array(await blob.arrayBuffer()))) face.textContent = "silence";
      else {
        const query = new URLSearchParams({ name });
        const thing = await during(
          `Reading ${title}`,
          ask(`/v1/read?${query}`, { body: blob, method: "POST" }),
        );
        if (!thing) return;
        face.replaceChildren(thumbnail(thing.song).canvas);
        song = line(thing.song);
      }
    }

    let seen = null; // looked at once
    play.addEventListener("click", async () => {
      if (song && player.playing && player.line === song) return player.stop();
      await (seen ??= look());
      return song && player.play(song, { title: `${title}, ${label}` });
    });
    if (/sample\D*0*[1-3]\.|sample\.|journey/.test(name)) seen = look();
    return play;
  }

  part.cancel.addEventListener("click", async () => {
    const job = await during("Cancelling", ask(`/v1/jobs/${watched}/cancel`, { method: "POST" }));
    if (job) know(job);
  });
  part.delete.addEventListener("click", async () => {
    const id = watched;
    if ((await during("Deleting", ask(`/v1/jobs/${id}`, { method: "DELETE", as: "text" }))) === undefined)
      return;
    listening?.abort();
    jobs.delete(id);
    watched = null;
    part.watch.hidden = true;
    refresh();
  });
  part.use.addEventListener("click", () => useModel(jobs.get(watched).model));
  document.addEventListener("job", ({ detail }) => know(detail));

  async function refresh() {
    const every = await during("Asking for the work", ask("/v1/jobs"));
    part.jobs.replaceChildren();
    jobs.clear();
    part.none.hidden = false;
    every?.forEach(know);
    for (const { name } of await models())
      if (![...form.elements.start.options].some(({ value }) => value === name))
        form.elements.start.add(new Option(name, name));
  }
  const link = async () => new URLSearchParams(watched ? { job: watched } : {});
  await refresh();
  const latest = jobs.get(wanted) ?? [...jobs.values()].find((job) => !over(job));
  if (latest) watch(latest.id);
  return {
    link,
    seen: () => watched || refresh(),
  };
}

/** The files in what was dropped, folders with all that is below them. */
async function within(entry) {
  if (entry.isFile) return [await new Promise((done, fail) => entry.file(done, fail))];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((done, fail) => reader.readEntries(done, fail));
    if (!some.length) return (await Promise.all(found.map(within))).flat();
    found.push(...some);
  }
}

/** Whether a MIDI file of ours has a note-on; a model that has just begun writes silence now and then. */
const sounds = (bytes) => bytes.some((byte) => byte >> 4 === 9);
const counted = (job) => (job.steps ? `${job.step} of ${job.steps}` : "");
const when = (seconds) =>
  new Date(seconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
