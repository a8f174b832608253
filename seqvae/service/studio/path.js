// The way from A to B: asked for once, walked by a slider, and a journey through it in time.

import { ask, during, newest, say } from "./api.js";
import { h } from "./dom.js";
import { named } from "./desk.js";

const STEPS = 9;

export function makePath(desk, part) {
  const { kind } = desk;
  let things = [];
  let journey = null;
  let faces = [];
  let known = ""; // the ends that the path is of
  const fit =
    kind.name === "melody"
      ? h("select", {}, new Option("loop the shorter", "loop"), new Option("stretch the shorter", "stretch"))
      : null;
  const share = (i) => i / (STEPS - 1);
  const weights = (i) => [1 - share(i), share(i), 0, 0];

  const ask9 = newest(async ([a, b, key], signal) => {
    part.strip.setAttribute("aria-busy", "true");
    const body = {
      a: named(a.thing),
      b: named(b.thing),
      steps: STEPS,
      ...desk.how,
      ...(fit && { fit: fit.value }),
    };
    const found = await during(
      `Finding the way from ${a.title} to ${b.title}`,
      desk.verb("interpolate", body, signal),
    );
    part.strip.removeAttribute("aria-busy");
    if (!found) return;
    ({ things, journey } = found);
    known = key;
    const said = found.notices ?? [];
    part["path-facts"].textContent = said.join(" · ");
    draw();
    if (waiting !== null) show(waiting);
    else if (desk.stage?.from?.[0] === "path") show(Number(part.t.value));
    waiting = null;
  }, Infinity);
  let waiting = null; // a step to show when the path is there

  function begin() {
    const [a, b] = desk.slots;
    part.t.disabled = !a || !b;
    if (!a || !b) {
      things = [];
      part.strip.replaceChildren(
        h("p", { class: "hint", textContent: `Put a ${kind.thing} into A and one into B.` }),
      );
      return undefined;
    }
    const key = JSON.stringify([desk.model.name, a.thing, b.thing, desk.how, fit?.value]);
    return key === known ? undefined : ask9([a, b, key]);
  }

  function draw() {
    faces = things.map((thing, i) => kind.face(thing, weights(i)));
    part.strip.replaceChildren(
      ...faces.map((face, i) =>
        h(
          "button",
          {
            type: "button",
            class: "step",
            tabIndex: -1,
            "aria-label": `Step ${i + 1} of ${STEPS}`,
            onclick: () => show(i),
          },
          face.canvas ?? face.element,
        ),
      ),
    );
    mark();
  }

  function mark() {
    const at = desk.stage?.from?.[0] === "path" ? desk.stage.from[1] : -1;
    [...part.strip.querySelectorAll(".step")].forEach((one, i) => one.classList.toggle("on", i === at));
  }

  function show(i) {
    part.t.value = i;
    part.t.setAttribute(
      "aria-valuetext",
      i === 0 ? "A" : i === STEPS - 1 ? "B" : `${Math.round(share(i) * 100)} % of the way from A to B`,
    );
    if (!things[i]) {
      waiting = i;
      return;
    }
    const title =
      i === 0
        ? "A, as the model hears it"
        : i === STEPS - 1
          ? "B, as the model hears it"
          : `${Math.round(share(i) * 100)} % from A to B`;
    desk.show({
      thing: things[i],
      title: kind.name === "melody" ? title : title.replace("hears", "sees"),
      weights: weights(i),
      from: ["path", i],
    });
  }

  part.t.max = STEPS - 1;
  part.t.addEventListener("input", () => show(Number(part.t.value)));
  fit?.addEventListener("change", () => {
    desk.extra.fit = fit.value;
    begin();
    desk.tell("path");
  });
  desk.on("slots model settings", begin);
  desk.on("stage", mark);
  desk.origins.path = show;
  if (fit) part["path-tools"].append(h("label", {}, "Unequal lengths ", fit));
  part["path-tools"].append(
    h("button", {
      type: "button",
      class: "needs",
      textContent: "Swap A and B",
      onclick: () => {
        const [a, b, ...rest] = desk.slots;
        desk.slots = [b, a, ...rest];
        desk.tell("slots");
      },
    }),
  );
  if (kind.name === "melody") {
    part["path-tools"].append(
      h("button", {
        type: "button",
        class: "needs",
        textContent: "Play the journey",
        title: "From A to B in the time of one song",
        onclick: () => {
          if (!journey) return say("The way is not found yet.");
          desk.show({ thing: journey, title: "Journey from A to B", weights: weights(4) });
          return kind.play(desk, 0);
        },
      }),
      h("button", {
        type: "button",
        class: "needs",
        textContent: "Make files of the way",
        title: "A job: every step and the journey as MIDI, WAV and PNG",
        onclick: files,
      }),
    );
  }
  part["path-tools"].querySelectorAll(".needs").forEach((one) => (one.disabled = true));
  desk.on("slots", () =>
    part["path-tools"]
      .querySelectorAll(".needs")
      .forEach((one) => (one.disabled = !desk.slots[0] || !desk.slots[1])),
  );

  async function files() {
    const [a, b] = desk.slots;
    const body = {
      kind: "interpolate",
      model: desk.model.name,
      a: named(a.thing),
      b: named(b.thing),
      steps: STEPS,
      fit: fit.value,
      formats: ["mid", "wav", "png"],
    };
    const job = await during("Handing in the job", ask("/v1/jobs", { body }));
    if (!job) return;
    say("The files are being made; they appear under Training, among the work.");
    document.dispatchEvent(new CustomEvent("job", { detail: job }));
  }
  return { fit };
}
