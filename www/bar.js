/** The address bar: what is read, and how. */
import { $, make, number, set, setWithIds } from "./dom.js";
import { READY_STATES, describe } from "./reader.js";
import { text } from "./text.js";

/** A field as HTTP has it: a token, a colon, a value of a byte a character. */
const FIELD = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\xff\t]*?)[ \t]*$/;

/** Marks an input as wrong, and says why below it. Without a sentence it is right. */
export function mark(input, sentence = "") {
  const id = `${input.id}-why`;
  if (sentence && !$(id)) {
    input.closest("label").append(make("small", { id, className: "wrong" }));
    input.setAttribute("aria-describedby", `${input.getAttribute("aria-describedby") ?? ""} ${id}`.trim());
  }
  if (!$(id)) return;
  $(id).textContent = sentence;
  $(id).hidden = !sentence;
  input.removeAttribute("aria-invalid");
  if (!sentence) return;
  input.setAttribute("aria-invalid", "true");
  input.closest("details")?.setAttribute("open", "");
  input.focus();
}

const lines = (content, separator) => content.split(separator).map((line) => line.trim()).filter(Boolean);

/** What the bar says, or null when a part of it is wrong. @returns {import("./reader.js").Order | null} */
export function order({ isQuiet = false } = {}) {
  const complain = isQuiet ? () => {} : mark;
  const isFetch = $("bar-as").value === "fetch";
  const url = URL.parse($("bar-url").value.trim() || ".", document.baseURI), isHttp = /^http/.test(url?.protocol);
  complain($("bar-url"), isHttp ? "" : text("bar.urlBad"));
  if (!isHttp) return null;
  const given = {
    url: url.href, as: $("bar-as").value, lastId: $("bar-last-id").value.trim(), once: isFetch && $("bar-once").checked,
    types: lines($("bar-types").value, ","),
  };
  if (!isFetch) return given;
  const fieldLines = lines($("bar-fields").value, "\n"), bad = fieldLines.find((line) => !FIELD.test(line));
  complain($("bar-fields"), bad === undefined ? "" : text("bar.fieldsBad", { line: bad }));
  if (bad !== undefined) return null;
  const method = $("bar-method").value, fields = fieldLines.map((line) => FIELD.exec(line).slice(1));
  return { ...given, method, fields, content: method === "GET" ? "" : $("bar-content").value };
}

/** Puts an order into the bar. @param {import("./reader.js").Order} order */
export function fill({ url, as, method = "GET", fields = [], content = "", lastId = "", types = [], once = false }) {
  const values = { url, as, method, content, fields: fields.map((field) => field.join(": ")).join("\n"), "last-id": lastId, types: types.join(", ") };
  for (const [name, value] of Object.entries(values)) $(`bar-${name}`).value = value;
  $("bar-once").checked = once;
  fit();
}

/** Shows the parts of a request that the way of reading has. */
export function fit() {
  const isFetch = $("bar-as").value === "fetch";
  for (const part of document.querySelectorAll(".fetch-only, .eventsource-only")) part.hidden = part.classList.contains("fetch-only") !== isFetch;
  $("bar-content").parentElement.hidden = !isFetch || $("bar-method").value === "GET";
}

/** @param {import("./reader.js").State} state */
export function showState(state) {
  const { name, why = "" } = state, isClosed = READY_STATES[name] === 2;
  $("read-lamp").className = `lamp ${name}`;
  setWithIds($("read-state"), describe(state));
  setWithIds($("read-why"), isClosed ? why : "");
  $("read-why").hidden = !isClosed || !why;
  $("read-why").className = `notice ${name}`;
  set($("bar-read"), text(isClosed ? "bar.read" : "bar.stop"));
}

export function showTotals({ events, rate, lastId, summary }) {
  set($("read-events"), number(events));
  set($("read-rate"), number(rate));
  setWithIds($("read-id"), lastId || text("none"));
  set($("read-summary"), summary);
}
