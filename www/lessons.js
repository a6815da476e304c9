/** Exercises for a class: what to type, and what is seen. The text `lesson.NAME` has the title, what to do, and what to see. */
import { $, fillLines, make } from "./dom.js";
import { text } from "./text.js";

/**
 * The number before each line is that of a terminal; without one it is for the console of this page. `seen` is what came:
 * ids and the reconnection time differ.
 * @type {{ name: string, lines: [number, string][], seen: string }[]}
 */
const LESSONS = [
  {
    name: "frame",
    lines: [[1, '(echo "GET /sse/mvc/words HTTP/1.0"; echo; sleep 11) | telnet 127.0.0.1 8080']],
    seen: `HTTP/1.1 200 OK
Content-Type: text/event-stream
Cache-Control: no-store, no-transform
…

: newswire
retry: 2521
id: 1
data: The

id: 2
data: quick
…`,
  },
  {
    name: "cut",
    lines: [[1, "curl -N 'http://127.0.0.1:8080/lab?interval=3000&line=class'"],
      [2, "curl -X DELETE http://127.0.0.1:8080/lab/lines/class"],
      [1, "curl -N -H 'Last-Event-ID: 3' http://127.0.0.1:8080/lab"]],
    seen: `id: 4
data: fox

id: 5
data: jumps
…`,
  },
  {
    name: "find",
    lines: [[1, "id=$(curl -s -H 'Accept: text/plain' -d one http://127.0.0.1:8080/channels/class); echo $id"],
      [1, "curl -sd two http://127.0.0.1:8080/channels/class"],
      [1, 'curl -sN -m 2 -H "Last-Event-ID: $id" http://127.0.0.1:8080/channels/class']],
    seen: `1795721498377-0
{"id":"1795721498501-0","subscribers":0}
: newswire
retry: 2011
id: 1795721498501-0
data: two`,
  },
  {
    name: "gap",
    lines: [[1, "seq 2000 | curl -sT - 'http://127.0.0.1:8080/channels/class?lines'"],
      [1, 'curl -sN -m 2 -H "Last-Event-ID: $id" http://127.0.0.1:8080/channels/class | head -7']],
    seen: `{"count":2000,"id":"1795721501589-476","subscribers":0}
: newswire
retry: 2363
event: gap
data: {"asked":"1795721498377-0","oldest":"1795721501588-909"}

id: 1795721501588-909
data: 1001`,
  },
  {
    name: "six",
    lines: [[0, [
      "sources = [1, 2, 3, 4, 5, 6, 7].map((n) => {",
      '  const source = new EventSource("http://127.0.0.1:8080/channels/class");',
      "  source.onopen = () => console.log(`${n} is open`);",
      "  return source;",
      "});"].join("\n")], [0, "sources[0].close()"], [0, "sources.forEach((source) => source.close())"]],
    seen: `1 is open
2 is open
3 is open
4 is open
5 is open
6 is open
7 is open`,
  },
];

export function start() {
  $("exercises").append(...LESSONS.map(({ name, lines, seen }) => {
    const line = ([terminal, code]) => make("p", { className: "line" },
      make("span", {}, terminal ? text("lessons.terminal", { terminal }) : text("lessons.console")), make("code", {}, code));
    return make("li", { id: `lesson-${name}` }, make("h3", {}, text(`lesson.${name}.0`)),
      make("p", { innerHTML: text(`lesson.${name}.1`) }), ...lines.map(line),
      make("p", { className: "note" }, text("lessons.seen")), make("pre", {}, seen), make("p", { innerHTML: text(`lesson.${name}.2`) }));
  }));
  fillLines($("exercises"));
}
