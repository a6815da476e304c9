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

/** A command line: its start, and how it names a method, a field and a content. */
function command(order, start, [forMethod, forField, forContent], fields) {
  const { url, content } = order, method = order.as === "fetch" ? order.method ?? "GET" : "GET";
  const isImplied = method === "GET" || method === "POST" && content;
  return [...start, ...(isImplied ? [] : [forMethod, method]), ...fields.flatMap((field) => [forField, quoteField(field)]),
    ...(method !== "GET" && content ? [forContent, quote(content)] : []), word(url)].join(" ");
}

const fieldsIfFetch = ({ as, fields }) => as === "fetch" ? fields : [];

const curl = (order) => command(order, ["curl -N"], ["-X", "-H", "--data-raw"], fieldsOf({ ...order, fields: fieldsIfFetch(order) }));

const watch = (order) => command(order,
  ["newswire watch", ...(order.once ? ["--once"] : []), ...(order.lastId ? ["--last-event-id", word(order.lastId)] : [])],
  ["--method", "--header", "--data"], fieldsOf({ fields: fieldsIfFetch(order) }));

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
