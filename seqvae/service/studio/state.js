// What is on the page, kept in the URL's hash: #music?model=melody&seed=1&... brings it back.

let timer = 0;
let written = location.hash;

export function read() {
  const [view, query = ""] = location.hash.slice(1).split(/\?(.*)/s);
  return { view, params: new URLSearchParams(query) };
}

/** Writes a view and its parameters after a moment's rest; `make` gives them, as late as possible. */
export function keep(view, make) {
  clearTimeout(timer);
  timer = setTimeout(async () => write(view, await make()), 250);
}

export function write(view, params) {
  clearTimeout(timer);
  const query = String(params);
  written = `#${view}${query ? `?${query}` : ""}`;
  history.replaceState(null, "", written);
}

addEventListener("hashchange", () => {
  if (location.hash !== written) location.reload(); // a link was pasted
});

/** Any JSON as a word for a link. */
export async function pack(value) {
  const stream = new Blob([JSON.stringify(value)]).stream().pipeThrough(new CompressionStream("deflate-raw"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  let letters = "";
  for (const byte of bytes) letters += String.fromCharCode(byte);
  return btoa(letters).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

export async function unpack(word) {
  const bytes = Uint8Array.from(atob(word.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Response(stream).json();
}
