/** Asks for the words and their bytes, then for the other modules. words.js takes the words over. */

/** A name that no other line has. Each request gets a new one: the server may still write to the line before. */
export const freshLine = () =>
  "page-" + [...crypto.getRandomValues(new Uint8Array(9))].map((byte) => byte.toString(36)).join("");

/** Shows a word at once. words.js replaces it. */
const show = ({ data }) => document.getElementById("sentence")?.append(data, " ");

/** An EventSource that keeps what it says until `replay` is called. */
function listen(url) {
  const source = new EventSource(new URL(url, document.baseURI)), kept = [];
  const keep = (event) => kept.push(event), types = ["open", "error", "message", "head", "bytes"];
  for (const type of types) source.addEventListener(type, keep);
  source.replay = () => {
    for (const type of types) source.removeEventListener(type, keep);
    source.removeEventListener("message", show);
    for (const event of kept.splice(0)) source.dispatchEvent(new event.constructor(event.type, event));
  };
  return source;
}

function ask() {
  const line = freshLine(), watched = listen(`lab/lines/${line}`);
  // The line is watched before the server writes on it. Without a laboratory there are no lines.
  const words = new Promise((resolve) => {
    watched.addEventListener("open", () => resolve(`?line=${line}`), { once: true });
    watched.addEventListener("error", () => resolve(""), { once: true });
  }).then((query) => listen(`sse/mvc/words${query}`));
  words.then((source) => source.addEventListener("message", show));
  return { line, watched, words };
}

/** A page that is hidden waits. */
export const early = document.hidden ? null : ask();

// The modules would take the network from the words. A server that does not answer must not hold them back.
await Promise.race([early?.words, new Promise((resolve) => setTimeout(resolve, 500))]);
import("./app.js");
