/** What to type elsewhere for the same: JavaScript, curl and newswire. */
import { $, here } from "./dom.js";

/** For a POSIX shell. */
const quote = (content) => `'${content.replaceAll("'", "'\\''")}'`;

/** A word that no shell reads as anything else needs no quotation marks. */
const word = (content) => /^[\w./:=@%+,-]+$/.test(content) ? content : quote(content);

/** The fields of an order with the last event ID. A key is not shown. */
const fieldsOf = ({ fields = [], lastId }) => [
  ...fields.map(([name, value]) => [name, /^authorization$/i.test(name) ? value.replace(/ .*/, " $TOKEN") : value]),
  ...(lastId ? [["Last-Event-ID", lastId]] : []),
];

/** In double quotation marks the shell puts in the variable. */
const quoteField = ([name, value]) => value.includes("$TOKEN") ? `"${name}: ${value}"` : quote(`${name}: ${value}`);

function curl(order) {
  const method = order.as === "fetch" && order.method && order.method !== "GET" ? order.method : "";
  const fields = order.as === "fetch" ? fieldsOf(order) : fieldsOf({ lastId: order.lastId });
  const parts = [...(method && !(method === "POST" && order.content) ? ["-X", method] : []),
    ...fields.flatMap((field) => ["-H", quoteField(field)]),
    ...(method && order.content ? ["--data-raw", quote(order.content)] : [])];
  return ["curl -N", ...parts, word(order.url)].join(" ");
}

function watch(order) {
  const isFetch = order.as === "fetch", method = isFetch ? order.method ?? "GET" : "GET";
  const parts = [...(order.once ? ["--once"] : []), ...(order.lastId ? ["--last-event-id", word(order.lastId)] : []),
    ...(isFetch ? fieldsOf({ fields: order.fields }).flatMap((field) => ["--header", quoteField(field)]) : []),
    ...(method !== "GET" && !(method === "POST" && order.content) ? ["--method", method] : []),
    ...(method !== "GET" && order.content ? ["--data", quote(order.content)] : [])];
  return ["newswire watch", ...parts, word(order.url)].join(" ");
}

function script(order) {
  const url = JSON.stringify(order.url);
  if (order.as === "eventsource" || (order.method ?? "GET") === "GET" && !order.fields?.length) {
    const types = (order.types ?? []).filter((type) => type !== "message");
    return [`const source = new EventSource(${url});`,
      "source.onmessage = (event) => console.log(event.lastEventId, event.data);",
      ...types.map((type) => `source.addEventListener(${JSON.stringify(type)}, (event) => console.log(event.data));`),
      ...(order.endsAt ? [`source.addEventListener(${JSON.stringify(order.endsAt)}, () => source.close());`] : [])].join("\n");
  }
  const { method = "GET", content, fields = [] } = order;
  const init = [`method: ${JSON.stringify(method)}`,
    ...(fields.length ? [`headers: ${JSON.stringify(Object.fromEntries(fieldsOf({ fields })))}`] : []),
    ...(content ? [`body: ${JSON.stringify(content)}`] : [])];
  return [`const response = await fetch(${url}, { ${init.join(", ")} });`,
    "for await (const text of response.body.pipeThrough(new TextDecoderStream())) console.log(text);"].join("\n");
}

export function showSnippets(order) {
  $("type-script").textContent = script(order);
  $("type-curl").textContent = curl(order);
  $("type-watch").textContent = watch(order);
}

/** The lines that publish on a channel. @param {{ name: string, type: string, content: string, hasKey: boolean }} publication */
export function publishLine({ name, type, content, hasKey }) {
  const url = here(`channels/${name}${type ? `?event=${encodeURIComponent(type)}` : ""}`);
  return ["curl", ...(hasKey ? ['-H "Authorization: Bearer $TOKEN"'] : []), "--data-raw", quote(content), word(url)].join(" ");
}

export function floodLine(name, hasKey) {
  const key = hasKey ? '-H "Authorization: Bearer $TOKEN" ' : "";
  return `seq 2000 | curl ${key}-T - ${quote(here(`channels/${name}?lines`))}`;
}
