/** What to type elsewhere for the same: JavaScript, curl and newswire. */
import { $, here } from "./dom.js";

/** For a POSIX shell. */
const quote = (content) => `'${content.replaceAll("'", "'\\''")}'`;

/** A word that no shell reads as anything else needs no quotation marks. */
const word = (content) => /^[\w./:=@%+,-]+$/.test(content) ? content : quote(content);

/** A key is not shown. */
const withoutKey = ([name, value]) => [name, /^authorization$/i.test(name) ? value.replace(/ .*/, " $TOKEN") : value];

/** In double quotation marks the shell puts in the variable. */
const quoteField = ([name, value]) => value.includes("$TOKEN") ? `"${name}: ${value}"` : quote(`${name}: ${value}`);

/** A command line: its start, and how it names a method, a field and a content. */
function command({ url, as, method = "GET", fields = [], content }, start, [forMethod, forField, forContent], lastId = "") {
  const isFetch = as === "fetch", sends = isFetch && method !== "GET";
  const sent = [...(isFetch ? fields.map(withoutKey) : []), ...(lastId ? [["Last-Event-ID", lastId]] : [])];
  return [...start, ...(sends && (method !== "POST" || !content) ? [forMethod, method] : []),
    ...sent.flatMap((field) => [forField, quoteField(field)]), ...(sends && content ? [forContent, quote(content)] : []), word(url)].join(" ");
}

const curl = (order) => command(order, ["curl -N"], ["-X", "-H", "--data-raw"], order.lastId);

const watch = (order) => command(order,
  ["newswire watch", ...(order.once ? ["--once"] : []), ...(order.lastId ? ["--last-event-id", word(order.lastId)] : [])],
  ["--method", "--header", "--data"]);

function script({ url, as, method = "GET", fields = [], content, types = [], endsAt }) {
  const json = JSON.stringify;
  if (as === "eventsource" || method === "GET" && fields.length === 0) {
    return [`const source = new EventSource(${json(url)});`,
      "source.onmessage = (event) => console.log(event.lastEventId, event.data);",
      ...types.filter((type) => type !== "message").map((type) => `source.addEventListener(${json(type)}, (event) => console.log(event.data));`),
      ...(endsAt ? [`source.addEventListener(${json(endsAt)}, () => source.close());`] : [])].join("\n");
  }
  const headers = fields.length > 0 ? Object.fromEntries(fields.map(withoutKey)) : undefined;
  return `const response = await fetch(${json(url)}, ${json({ method, headers, body: content || undefined }, null, 1).replace(/\n */g, " ")});
for await (const text of response.body.pipeThrough(new TextDecoderStream())) console.log(text);`;
}

/** @param {import("./reader.js").Order} order */
export function showSnippets(order) {
  $("type-script").textContent = script(order);
  $("type-curl").textContent = curl(order);
  $("type-watch").textContent = watch(order);
}

const KEY = ["-H", '"Authorization: Bearer $TOKEN"'];

/** The lines that publish on a channel. @param {{ name: string, type: string, content: string, hasKey: boolean }} publication */
export function publishLine({ name, type, content, hasKey }) {
  const url = here(`channels/${name}${type ? `?event=${encodeURIComponent(type)}` : ""}`);
  return ["curl", ...(hasKey ? KEY : []), "--data-raw", quote(content), word(url)].join(" ");
}

export const floodLine = (name, hasKey) =>
  ["seq 2000 | curl", ...(hasKey ? KEY : []), "-T -", quote(here(`channels/${name}?lines`))].join(" ");
