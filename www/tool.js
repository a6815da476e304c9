/** One reader for any stream. The laboratory, the editor and the channels give it what to read. */
import { fill, fit, order as barOrder, showState, showTotals } from "./bar.js";
import { Chart } from "./chart.js";
import { $, enable, here, number, press, say } from "./dom.js";
import { freshLine } from "./early.js";
import { Log } from "./log.js";
import { Reader, describe, withParameter } from "./reader.js";
import { play } from "./recording.js";
import { showSnippets } from "./snippets.js";
import { text } from "./text.js";
import { Wire, cutLine } from "./wire.js";

/** So long after an event, a screen reader is told of no other. */
const SPOKEN_MS = 4000;

const log = new Log(), chart = new Chart($("chart")), wire = new Wire($("read-wire"), 120, comment);
const listeners = new Set(), refusals = new Set();
let line = "", lostRow = null, stopPlaying = null, run = 0, ticking = 0, spoken = 0, shownUrl = "", told = "";
let total = fresh(), rates = [];

function fresh() {
  return { events: 0, characters: 0, connections: 0, ends: 0, comments: 0, seesComments: false, began: performance.now(), ended: 0 };
}

function comment() {
  total.comments++;
  chart.comment();
}

/** Is called with each state of the reader. @param {(state: import("./reader.js").State, reader: Reader) => void} listener */
export const onState = (listener) => listeners.add(listener);

const heard = {
  wires: () => Number(wire.isWatching),
  opened({ fields, lost, lastId }) {
    total.connections++;
    total.seesComments = Boolean(fields) || wire.isWatching;
    if (fields && $("wire-more").open) wire.headOfFetch(fields);
    wire.opened();
    const behind = lastId ? text("row.behind", { id: lastId }) : "";
    if (lostRow) {
      const seconds = ((performance.now() - lost.since) / 1000).toFixed(1);
      log.update(lostRow, { kind: "back", note: text("row.back", { tries: lost.tries, seconds, behind }) });
    } else {
      log.add({ kind: "open", note: text("row.open", { behind }) });
    }
    lostRow = null;
  },
  event({ type, data, lastEventId }) {
    total.events++;
    total.characters += data.length;
    chart.event(data.length);
    wire.event({ type, data, lastEventId });
    log.add(rowOf(type, data, lastEventId));
    if (Date.now() - spoken > SPOKEN_MS) say("event", `${type}: ${data.slice(0, 200)}`);
    spoken = Date.now();
  },
  comment,
  bytes(piece) {
    if (wire.hasBytes) wire.read(piece);
  },
  changed(state) {
    chart.become(reader.readyState);
    show(state);
    if (state.name === "waiting") lose(state);
    else if (!reader.isActive) finish(state);
    for (const listener of listeners) listener(state, reader);
  },
  refused: (status, said) => refusals.forEach((listener) => listener(status, said, reader.order)),
  takeUp: () => begin({ ...reader.order, url: shownUrl, lastId: reader.lastId }, { isResumed: true }),
};
const reader = new Reader(heard);

/** Is called when a server refuses. @param {(status: number, said: string, order: import("./reader.js").Order) => void} listener */
export const onRefusal = (listener) => refusals.add(listener);

/** An event that the server sends of its own is not an event of the stream. */
function rowOf(type, data, id) {
  if (!reader.order?.endsAt || type !== "gap" && type !== "end") return { kind: "event", type, data, id };
  const [, asked, oldest] = /"asked":"(.*)","oldest":"?([^"}]*)/.exec(data) ?? [];
  const key = type === "end" || !asked ? type : oldest === "null" ? "gapNone" : "gapOldest";
  return { kind: type, note: text(`row.${key}`, { data, asked, oldest }) };
}

/** One row counts all tries. */
function lose({ why, tries, since }) {
  if (tries === 1) {
    total.ends++;
    chart.end();
    wire.ended(text(reader.lastId ? "wire.lostId" : "wire.lost", { id: reader.lastId }), "failed");
  }
  const key = tries > 1 || why === "unreachable" ? "away" : why;
  const note = text(`row.${key}`, { tries, seconds: Math.round((performance.now() - since) / 1000) });
  if (lostRow) log.update(lostRow, { note });
  else lostRow = log.add({ kind: "lost", note });
}

function finish({ name, why }) {
  const hasFailed = name === "gaveUp";
  if (hasFailed) chart.end();
  wire.ended(text(hasFailed ? "wire.gaveUp" : "wire.closed", { why }), hasFailed ? "failed" : "closed");
  log.add({ kind: name, note: text(`row.${name}`, { why }) });
  lostRow = null;
  // The last bytes of a watched line may still come.
  const { source } = wire;
  if (source) setTimeout(() => source === wire.source && wire.unwatch(), 200);
  run++;
  clearInterval(ticking);
  total.ended ||= performance.now();
  chart.stop();
  tell();
}

/** Runs four times a second, however fast events come. */
function tell() {
  const { events, characters, connections, ends, comments, began, ended } = total;
  rates = [...rates.slice(-4), events];
  const values = { seconds: (((ended || performance.now()) - began) / 1000).toFixed(1), events: number(events), ends: number(ends),
    characters: number(characters), connections: number(connections), comments: total.seesComments ? number(comments) : "–" };
  showTotals({ events, rate: ended ? 0 : events - rates[0], lastId: reader.lastId,
    summary: reader.state.name === "idle" ? "" : text("read.summary", values) });
  if (reader.state.name === "waiting") show(reader.state);
}

function tick() {
  clearInterval(ticking);
  ticking = setInterval(tell, 250);
  tell();
}

function show(state) {
  showState(state);
  $("read-cut").hidden = line === "";
  enable($("read-cut"), state.name === "open");
  if (told !== state.name) say("read", `${$("read-title").textContent}: ${describe(state)}`);
  told = state.name;
}

let labIsOn = true;
export const turnLabOff = () => { labIsOn = false; };
/** Whether the server can put this stream on a line. */
const takesLine = (url) => labIsOn && [here("lab"), here("sse/mvc/words")].includes(url.split(/[?#]/)[0]);

function clear(chartMs) {
  log.clear();
  wire.clear();
  chart.begin(chartMs);
  total = fresh();
  rates = [];
}

/** A channel of this server says when it is complete. */
const withEnd = (order) => order.url.startsWith(here("channels/")) ? { ...order, endsAt: "end" } : order;

/**
 * Reads a stream, and stops the one before.
 * @param {import("./reader.js").Order} given
 * @param {{ chartMs?: number, isResumed?: boolean, wire?: boolean }} [how] `isResumed`: the log goes on
 */
export async function begin(given, { chartMs, isResumed = false, wire: shows = $("wire-more").open } = {}) {
  stop();
  const order = withEnd(given), mine = ++run;
  $("wire-more").open = shows;
  line = takesLine(order.url) ? freshLine() : "";
  if (!isResumed) clear(chartMs);
  else if (total.ended) chart.begin();
  total.ended = 0;
  shownUrl = order.url;
  fill(order);
  showSnippets(order);
  if (line && shows && order.as === "eventsource") await wire.watch(line);
  if (mine !== run) return;
  reader.open({ ...order, url: withParameter(order.url, "line", line) });
  tick();
}

/** Plays a recording. @param {string} content @param {string} name */
export function playHere(content, name) {
  stop();
  clear();
  line = "";
  total.seesComments = true;
  reader.pretend(name);
  if ($("wire-more").open) wire.headOfFetch([["content-type", "text/event-stream"], [name, text("read.played")]]);
  total.connections++;
  wire.opened();
  log.add({ kind: "open", note: text("row.playing", { name }) });
  tick();
  stopPlaying = play(content, {
    event(message) {
      reader.lastId = message.lastEventId;
      heard.event(message);
    },
    comment,
    bytes: heard.bytes,
    ended: () => reader.close("done", text("state.played")),
  });
}

/** Closes what is read. @param {string} [why] a sentence */
export function stop(why) {
  stopPlaying?.();
  stopPlaying = null;
  if (reader.isActive) reader.close("letGo", why);
  run++;
}

export const currentOrder = () => reader.isActive || reader.isHidden ? reader.order : null;
/** The id behind which a stream that was read before goes on. @param {string} url */
export const lastIdOf = (url) => url === shownUrl ? reader.lastId : "";

export function start() {
  $("bar").onsubmit = (event) => {
    event.preventDefault();
    if (reader.isActive) return stop();
    const order = barOrder();
    if (order) begin(order, { isResumed: order.lastId !== "" && order.url === shownUrl });
  };
  $("bar").oninput = () => {
    fit();
    const order = barOrder({ isQuiet: true });
    if (order) showSnippets(withEnd(order));
  };
  press($("read-cut"), () => cutLine(line));
  const open = async (file) => file && playHere(await file.text(), file.name);
  press($("log-open"), () => $("log-file").click());
  $("log-file").onchange = () => {
    open($("log-file").files[0]);
    $("log-file").value = "";
  };
  // A file that is dropped anywhere on the page plays.
  document.addEventListener("dragover", (event) => {
    if (event.dataTransfer.types.includes("Files")) event.preventDefault();
  });
  document.addEventListener("drop", (event) => {
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    open(event.dataTransfer.files[0]);
    $("read").scrollIntoView();
  });
  $("wire-more").ontoggle = () => {
    const isOpen = $("wire-more").open;
    // A line that is watched goes on. The bytes of fetch are not kept while nobody sees them.
    if (isOpen && !wire.hasBytes && reader.isActive && reader.order.as === "fetch") wire.join();
    else if (!isOpen && !wire.isWatching) wire.hasBytes = false;
  };
  fill({ url: here("sse/mvc/words"), as: "fetch" });
  showSnippets(barOrder({ isQuiet: true }));
  show(reader.state);
  tell();
  chart.stop();
}
