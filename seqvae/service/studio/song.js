// Songs in time: bars, beats and seconds; and the player, which can change songs without losing the bar.
// A beat is a quarter note whatever the metre; beat 0 is where a song begins.

const SLACK = 1 / 24; // beats; times nearer than this are the same time

export const beatsOf = (metre) => {
  const [above, below] = metre.split("/").map(Number);
  return (4 * above) / below;
};

/** Bars [{beat, beats, metre}] of a song, a pickup being a whole bar that begins before beat 0. */
export function barsOf(song) {
  const notes = song.parts.flatMap((part) => part.notes);
  const end = Math.max(0, ...notes.map((note) => note.onset + Math.max(note.duration, 1 / 12))) - 0.9 * SLACK;
  const entries = [...song.metres, [Infinity, "4/4"]];
  let metre = song.metres[0][1];
  let at = song.pickup ? song.pickup - beatsOf(metre) : 0;
  const bars = [];
  for (let entry = 1; !bars.length || at < end;) {
    while (entries[entry][0] < at + SLACK) [at, metre] = entries[entry++];
    const next = Math.min(at + beatsOf(metre), entries[entry][0]);
    bars.push({ beat: at, beats: next - at, metre });
    at = next;
  }
  return bars;
}

/** A song made ready to be drawn and played. */
export function line(song) {
  const bars = barsOf(song);
  const last = bars.at(-1);
  const length = last.beat + last.beats;
  const notes = song.parts
    .flatMap((part) => part.notes.map((note) => ({ ...note, program: part.program, drums: part.drums })))
    .sort((one, other) => one.onset - other.onset);
  const clock = [];
  for (const [beat, tempo] of song.tempi) {
    const before = clock.at(-1);
    const seconds = before ? before.seconds + (beat - before.beat) * before.pace : 0;
    clock.push({ beat, seconds, pace: 60 / tempo });
  }
  const holds = (key, value) => clock.findLast((one) => one[key] <= value) ?? clock[0];
  const seconds = (beat) => {
    const one = holds("beat", beat);
    return one.seconds + (beat - one.beat) * one.pace;
  };
  const beat = (time) => {
    const one = holds("seconds", time);
    return one.beat + (time - one.seconds) / one.pace;
  };
  return { song, bars, notes, length, seconds, beat };
}

/** Where a song stands when another has come to `beat`: in the same bar, as far into it. */
export function samePlace(from, beat, to) {
  const index = Math.max(
    0,
    from.bars.findLastIndex((bar) => bar.beat <= beat + 1e-9),
  );
  const share = (beat - from.bars[index].beat) / from.bars[index].beats;
  const bar = to.bars[index % to.bars.length];
  return Math.max(0, bar.beat + Math.min(1, share) * bar.beats);
}

export function facts(song) {
  const { bars, length, seconds } = line(song);
  const metres = [...new Set(bars.map((bar) => bar.metre))];
  const whole = Math.round(seconds(length));
  const count = bars.length - (song.pickup > 0);
  const tempo = Math.round(song.tempi[0][1]);
  return [
    metres.length < 4 ? metres.join(", ") : "changing metre",
    song.key,
    `♩ = ${tempo}`,
    `${count} bar${count === 1 ? "" : "s"}`,
    `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`,
  ]
    .filter(Boolean)
    .join(" · ");
}

// Partials' strengths; seconds of attack, decay and release; the level held; the filter's opening in multiples
// of the pitch at the onset and after the decay.
const TIMBRES = {
  piano: {
    partials: [1, 0.55, 0.3, 0.18, 0.12, 0.06, 0.04],
    attack: 0.004,
    decay: 0.9,
    hold: 0.12,
    release: 0.16,
    open: [9, 3],
  },
  pluck: {
    partials: [1, 0.7, 0.45, 0.3, 0.2, 0.12, 0.08],
    attack: 0.003,
    decay: 0.45,
    hold: 0.03,
    release: 0.25,
    open: [12, 2],
  },
  bass: { partials: [1, 0.6, 0.2, 0.1], attack: 0.006, decay: 0.6, hold: 0.3, release: 0.1, open: [8, 3] },
  flute: {
    partials: [1, 0.25, 0.12, 0.03],
    attack: 0.05,
    decay: 0.1,
    hold: 0.85,
    release: 0.09,
    open: [6, 6],
    vibrato: 4,
  },
  strings: {
    partials: [1, 0.5, 0.33, 0.25, 0.2, 0.16, 0.14, 0.12],
    attack: 0.07,
    decay: 0.2,
    hold: 0.8,
    release: 0.18,
    open: [4, 5],
    vibrato: 6,
  },
  reed: {
    partials: [1, 0.08, 0.6, 0.05, 0.35, 0.04, 0.15],
    attack: 0.03,
    decay: 0.1,
    hold: 0.8,
    release: 0.07,
    open: [7, 6],
  },
  organ: {
    partials: [1, 0.8, 0.2, 0.5, 0, 0.25, 0, 0.3],
    attack: 0.015,
    decay: 0.05,
    hold: 0.95,
    release: 0.08,
    open: [12, 12],
  },
  bell: {
    partials: [1, 0, 0.3, 0, 0, 0.35, 0, 0, 0.12],
    attack: 0.002,
    decay: 1.4,
    hold: 0.02,
    release: 0.5,
    open: [14, 6],
  },
};
// Of General MIDI's families of eight programmes:
const FAMILIES =
  "piano bell organ pluck bass strings strings reed reed flute reed strings organ pluck pluck bell".split(
    " ",
  );
const TITLES = { 40: "strings", 46: "pluck", 21: "reed" };

const AHEAD = 0.12; // seconds that are scheduled before they sound

/** Plays one line at a time; tells "change" when that begins, ends or becomes another. */
export class Player extends EventTarget {
  line = null;
  owner = null; // who plays
  playing = false;
  loop = true;
  instrument = "";
  #level = 0.7;
  #sound = null;
  #timer = 0;
  #from = { time: 0, beat: 0 };
  #next = 0;
  #told = 0; // the time up to which notes have been scheduled
  #voices = new Set();

  get now() {
    return this.#sound?.context.currentTime ?? 0;
  }

  /** Beats into the song, or null. */
  get beat() {
    if (!this.playing) return null;
    return Math.max(0, Math.min(this.line.length, this.#beatAt(Math.max(this.now, this.#from.time))));
  }

  set level(value) {
    this.#level = value;
    this.#sound?.master.gain.setTargetAtTime(value * value, this.now, 0.02);
  }

  async play(line, owner = null, beat = 0) {
    this.#open();
    this.#silence(this.now);
    this.line = line;
    this.owner = owner;
    this.playing = true;
    this.#sound.context.resume();
    this.#start(this.now + 0.06, beat);
    clearInterval(this.#timer);
    this.#timer = setInterval(() => this.#tick(), 25);
    this.#tick();
    this.#change();
  }

  /** Another song from the same place of the same bar on; the pulse goes on. */
  swap(line) {
    if (!this.playing) return;
    const time = Math.max(this.#told, this.now + 0.01);
    const beat = samePlace(this.line, this.#beatAt(time), line);
    this.#silence(time + 0.02);
    this.line = line;
    this.#start(time, beat >= line.length - 1e-9 ? 0 : beat);
    this.#change();
  }

  stop() {
    if (!this.playing) return;
    clearInterval(this.#timer);
    this.#silence(this.now);
    this.playing = false;
    this.#change();
  }

  #change() {
    this.dispatchEvent(new Event("change"));
  }

  #beatAt(time) {
    const { line } = this;
    return line.beat(line.seconds(this.#from.beat) + time - this.#from.time);
  }

  #timeAt(beat) {
    const { line } = this;
    return this.#from.time + line.seconds(beat) - line.seconds(this.#from.beat);
  }

  #start(time, beat) {
    this.#from = { time, beat };
    const found = this.line.notes.findIndex((note) => note.onset >= beat - 1e-6);
    this.#next = found < 0 ? this.line.notes.length : found;
    this.#told = Math.max(this.#told, time);
  }

  #tick() {
    const horizon = this.now + (document.hidden ? 1.5 : AHEAD); // a hidden page's timers are slow
    for (;;) {
      const { notes, length } = this.line;
      while (this.#next < notes.length && this.#timeAt(notes[this.#next].onset) < horizon) {
        const note = notes[this.#next];
        const end = Math.min(note.onset + note.duration, length);
        this.#voice(note, this.#timeAt(note.onset), this.#timeAt(end));
        this.#next += 1;
      }
      const end = this.#timeAt(length);
      if (end >= horizon) break;
      if (!this.loop) {
        if (this.now >= end) this.stop();
        break;
      }
      this.#start(end, 0);
    }
    this.#told = Math.max(this.#told, horizon);
  }

  #open() {
    if (this.#sound) return;
    const context = new AudioContext({ latencyHint: "interactive" });
    const master = new GainNode(context, { gain: this.#level ** 2 });
    const room = new ConvolverNode(context, { buffer: roomOf(context) });
    const wet = new GainNode(context, { gain: 0.22 });
    const limit = new DynamicsCompressorNode(context, { threshold: -14, ratio: 5 });
    master.connect(limit).connect(context.destination);
    master.connect(room).connect(wet).connect(limit);
    const waves = new Map(
      Object.entries(TIMBRES).map(([name, { partials }]) => {
        const imaginary = Float32Array.from([0, ...partials]);
        return [name, context.createPeriodicWave(new Float32Array(imaginary.length), imaginary)];
      }),
    );
    this.#sound = { context, master, waves };
  }

  #voice(note, start, end) {
    if (note.drums) return this.#drum(note, start);
    const { context, master, waves } = this.#sound;
    const name = this.instrument || TITLES[note.program] || FAMILIES[note.program >> 3];
    const timbre = TIMBRES[name];
    const pitch = 440 * 2 ** ((note.pitch - 69) / 12);
    const peak = 0.34 * (note.velocity / 100) ** 1.4;
    const wave = new OscillatorNode(context, { frequency: pitch, periodicWave: waves.get(name) });
    const filter = new BiquadFilterNode(context, { type: "lowpass", Q: 0.4 });
    const gain = new GainNode(context, { gain: 0 });
    const top = (times) => Math.min(14_000, pitch * times * (0.6 + note.velocity / 200));
    filter.frequency.setValueAtTime(top(timbre.open[0]), start);
    filter.frequency.setTargetAtTime(top(timbre.open[1]), start + timbre.attack, timbre.decay / 2);
    gain.gain.setValueAtTime(0, start);
    gain.gain.linearRampToValueAtTime(peak, start + timbre.attack);
    gain.gain.setTargetAtTime(peak * timbre.hold, start + timbre.attack, timbre.decay / 2);
    const over = Math.max(end, start + timbre.attack + 0.02);
    gain.gain.setTargetAtTime(0, over, timbre.release / 3);
    if (timbre.vibrato && end - start > 0.35) {
      const slow = new OscillatorNode(context, { frequency: 5.4 });
      const depth = new GainNode(context, { gain: 0 });
      depth.gain.linearRampToValueAtTime(0, start + 0.2);
      depth.gain.linearRampToValueAtTime(timbre.vibrato, start + 0.45);
      slow.connect(depth).connect(wave.detune);
      slow.start(start);
      slow.stop(over + timbre.release * 2);
    }
    wave.connect(filter).connect(gain).connect(master);
    this.#keep(wave, gain, start, over + timbre.release * 2);
  }

  #drum(note, start) {
    const { context, master } = this.#sound;
    const deep = note.pitch < 40;
    const source = new AudioBufferSourceNode(context, { buffer: noiseOf(context) });
    const filter = new BiquadFilterNode(context, {
      type: deep ? "lowpass" : "bandpass",
      frequency: deep ? 140 : Math.min(9000, 900 + (note.pitch - 35) * 260),
    });
    const gain = new GainNode(context, { gain: 0 });
    gain.gain.setValueAtTime((deep ? 0.9 : 0.25) * (note.velocity / 127), start);
    gain.gain.setTargetAtTime(0, start, deep ? 0.06 : 0.035);
    source.connect(filter).connect(gain).connect(master);
    this.#keep(source, gain, start, start + 0.4);
  }

  #keep(source, gain, start, end) {
    source.start(start);
    source.stop(end);
    const voice = { source, gain, start, end };
    this.#voices.add(voice);
    source.onended = () => {
      this.#voices.delete(voice);
      gain.disconnect();
    };
  }

  /** What sounds past `time` fades there, and what would begin after it does not. */
  #silence(time) {
    for (const voice of this.#voices) {
      if (voice.end <= time) continue;
      if (voice.start >= time) voice.gain.disconnect();
      voice.gain.gain.cancelScheduledValues(time);
      voice.gain.gain.setTargetAtTime(0, time, 0.03);
      voice.source.stop(time + 0.2);
    }
  }
}

function roomOf(context) {
  const length = Math.round(context.sampleRate * 1.1);
  const buffer = context.createBuffer(2, length, context.sampleRate);
  for (const channel of [0, 1]) {
    const data = buffer.getChannelData(channel);
    for (let i = 0; i < length; i += 1) data[i] = (Math.random() * 2 - 1) * (1 - i / length) ** 3.2;
  }
  return buffer;
}

let noise = null;

function noiseOf(context) {
  if (noise) return noise;
  noise = context.createBuffer(1, context.sampleRate / 2, context.sampleRate);
  const data = noise.getChannelData(0);
  for (let i = 0; i < data.length; i += 1) data[i] = Math.random() * 2 - 1;
  return noise;
}

export const player = new Player();
