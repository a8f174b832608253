// Requests to the service: errors in words, a key when one is asked for, patience when the server is busy.

const status = document.getElementById("status");
const progress = document.getElementById("progress");
let works = 0;
let said = 0; // sentences that progress must not cover

function show(sentence, fault = false) {
  status.textContent = sentence;
  status.classList.toggle("fault", fault);
}

/** One sentence in the status line; a fault is shown as one. */
export function say(sentence, fault = false) {
  said += 1;
  show(sentence, fault);
}

/**
 * Shows that something is under way until the promise is settled, in words if it lasts and nothing was said
 * since it began; faults are said.
 */
export async function during(words, work) {
  works += 1;
  const before = said;
  const late = setTimeout(() => {
    progress.hidden = false;
    if (said === before) show(`${words} …`);
  }, 250);
  try {
    const result = await work;
    if (status.textContent === `${words} …`) show("");
    return result;
  } catch (fault) {
    if (fault.name !== "AbortError") tell(fault);
    return undefined;
  } finally {
    clearTimeout(late);
    works -= 1;
    progress.hidden = works > 0 ? progress.hidden : true;
  }
}

export class Refused extends Error {
  constructor(status, sentence, after = 0) {
    super(sentence);
    Object.assign(this, { status, after });
  }
}

export function tell(fault) {
  if (!(fault instanceof Refused)) console.warn(fault);
  const words = fault.message.charAt(0).toUpperCase() + fault.message.slice(1);
  say(/[.!?]$/.test(words) ? words : `${words}.`, true);
}

const pause = (seconds, signal) =>
  new Promise((go, stop) => {
    const timer = setTimeout(go, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      stop(signal.reason);
    });
  });

let asking = null;

function askForKey() {
  const dialog = document.getElementById("key");
  asking ??= new Promise((done) => {
    const form = dialog.querySelector("form");
    dialog.showModal();
    dialog.addEventListener(
      "close",
      () => {
        const key = new FormData(form).get("key");
        if (key) sessionStorage.setItem("key", key);
        form.reset();
        asking = null;
        done(Boolean(key));
      },
      { once: true },
    );
  });
  return asking;
}

/**
 * The answer to a request. `body` is sent as JSON, or as it is where it is a Blob.
 * `patience`: how often a busy server is asked again, when it says that it may be.
 */
export async function ask(path, { body, method, signal, as = "json", patience = 4 } = {}) {
  for (let tries = 0; ; tries += 1) {
    const headers = {};
    const key = sessionStorage.getItem("key");
    if (key) headers.Authorization = `Bearer ${key}`;
    let sent = body;
    if (body !== undefined && !(body instanceof Blob)) {
      headers["Content-Type"] = "application/json";
      sent = JSON.stringify(body);
    }
    let answer;
    try {
      answer = await fetch(path, {
        method: method ?? (body === undefined ? "GET" : "POST"),
        headers,
        body: sent,
        signal,
      });
    } catch (fault) {
      if (fault.name === "AbortError") throw fault;
      throw new Refused(0, "the server does not answer; is it still running?");
    }
    if (answer.ok) return as === "answer" ? answer : answer.status === 204 ? null : answer[as]();
    const refusal = await answer.json().catch(() => ({}));
    const sentence = refusal.error ?? `the server answered ${answer.status}`;
    const after = Math.min(30, Number(answer.headers.get("Retry-After")) || 1);
    if (answer.status === 401 && (await askForKey())) continue;
    if ((answer.status === 429 || answer.status === 503) && tries < patience) {
      say(`The server is busy; asking again in ${after} s …`);
      await pause(after, signal);
      continue;
    }
    throw new Refused(answer.status, sentence, after);
  }
}

/** The events of a text/event-stream, each {event, data}. */
export async function* events(path, signal) {
  const answer = await ask(path, { as: "answer", signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value.replaceAll("\r", "");
    const blocks = held.split("\n\n");
    held = blocks.pop();
    for (const block of blocks) {
      const found = { event: "message", data: "" };
      for (const line of block.split("\n")) {
        const [, name, rest] = line.match(/^(\w+): ?(.*)$/) ?? [];
        if (name === "event") found.event = rest;
        if (name === "data") found.data += rest;
      }
      if (found.data) yield { event: found.event, data: JSON.parse(found.data) };
    }
  }
}

/**
 * A worker of which only the newest task counts: one is under way, one waits, and a slow one is given up for
 * the next, though never twice in a row, so that something is drawn while a pointer moves on and on.
 */
export function newest(work, slow = 300) {
  let running = null;
  let began = 0;
  let waiting = null;
  let gaveUp = false;
  async function loop() {
    while (waiting) {
      const [task] = waiting;
      waiting = null;
      running = new AbortController();
      began = performance.now();
      try {
        await work(task, running.signal);
        gaveUp = false;
      } catch (fault) {
        if (fault.name !== "AbortError") tell(fault);
      }
    }
    running = null;
  }
  return (task) => {
    waiting = [task];
    if (!running) return loop();
    if (!gaveUp && performance.now() - began > slow) {
      gaveUp = true;
      running.abort();
    }
    return undefined;
  };
}
