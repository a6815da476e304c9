/** The address bar: what is read, and how. */
import { $, make, number, set, setWithIds } from "./dom.js";
import { READY_STATES, describe } from "./reader.js";
import { text } from "./text.js";

/** A field as HTTP has it: a token, a colon, a value. */
const FIELD = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*$/;

/** Marks an input as wrong, and says why below it. Without a sentence it is right. */
export function mark(input, sentence = "") {
  const id = `${input.id}-why`;
  if (sentence && !$(id)) {
    input.closest(".row, label").append(make("small", { id, className: "wrong" }));
    input.setAttribute("aria-describedby", `${input.getAttribute("aria-describedby") ?? ""} ${id}`.trim());
  }
  const why = $(id);
  if (!why) return;
  why.textContent = sentence;
  why.hidden = !sentence;
  if (sentence) {
    input.setAttribute("aria-invalid", "true");
    input.closest("details")?.setAttribute("open", "");
    input.focus();
  } else {
    input.removeAttribute("aria-invalid");
  }
}

/** What the bar says, or null when a part of it is wrong. @returns {import("./reader.js").Order | null} */
export function order({ isQuiet = false } = {}) {
  const complain = isQuiet ? () => {} : mark;
  const asFetch = $("bar-as").value === "fetch";
  const url = URL.parse($("bar-url").value.trim() || ".", document.baseURI), isHttp = /^http/.test(url?.protocol);
  complain($("bar-url"), isHttp ? "" : text(url ? "bar.urlScheme" : "bar.urlBad"));
  if (!isHttp) return null;
  const lines = $("bar-fields").value.split("\n").filter((line) => line.trim() !== "");
  const fields = lines.map((line) => FIELD.exec(line.trim())?.slice(1));
  const bad = lines[fields.findIndex((field) => !field || /[^\x20-\xff\t]/.test(field[1]))];
  if (asFetch) complain($("bar-fields"), bad === undefined ? "" : text("bar.fieldsBad", { line: bad }));
  if (asFetch && bad !== undefined) return null;
  const method = $("bar-method").value, content = $("bar-content").value;
  return {
    url: url.href,
    as: asFetch ? "fetch" : "eventsource",
    lastId: $("bar-last-id").value.trim(),
    once: asFetch && $("bar-once").checked,
    types: $("bar-types").value.split(",").map((type) => type.trim()).filter(Boolean),
    ...(asFetch ? { method, fields, content: method === "GET" ? "" : content } : {}),
  };
}

/** Puts an order into the bar. */
export function fill(given) {
  $("bar-url").value = given.url;
  $("bar-as").value = given.as;
  $("bar-method").value = given.method ?? "GET";
  $("bar-fields").value = (given.fields ?? []).map((field) => field.join(": ")).join("\n");
  $("bar-content").value = given.content ?? "";
  $("bar-last-id").value = given.lastId ?? "";
  $("bar-types").value = (given.types ?? []).join(", ");
  $("bar-once").checked = given.once ?? false;
  fit();
}

/** Shows the parts of a request that the way of reading has. */
export function fit() {
  const asFetch = $("bar-as").value === "fetch";
  for (const part of document.querySelectorAll(".fetch-only")) part.hidden = !asFetch;
  for (const part of document.querySelectorAll(".eventsource-only")) part.hidden = asFetch;
  $("bar-content").closest("label").hidden = !asFetch || $("bar-method").value === "GET";
}

export function showState(state) {
  $("read-lamp").className = `lamp ${state.name}`;
  setWithIds($("read-state"), describe(state));
  const why = ["done", "gaveUp", "letGo"].includes(state.name) ? state.why : "";
  setWithIds($("read-why"), why);
  $("read-why").hidden = !why;
  $("read-why").className = `notice ${state.name}`;
  set($("bar-read"), text(READY_STATES[state.name] < 2 ? "bar.stop" : "bar.read"));
}

export function showTotals({ events, rate, lastId, summary }) {
  set($("read-events"), number(events));
  set($("read-rate"), number(rate));
  setWithIds($("read-id"), lastId || text("none"));
  set($("read-summary"), summary);
}
