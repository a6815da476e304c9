/** One reader for any stream. The laboratory, the editor and the channels give it what to read. */
import { fill, fit, order as barOrder, showState, showTotals } from "./bar.js";
import { Chart } from "./chart.js";
import { $, enable, here, number, press, say } from "./dom.js";
import { freshLine } from "./early.js";
import { Log } from "./log.js";
import { Reader, describe } from "./reader.js";
import { play } from "./recording.js";
import { showSnippets } from "./snippets.js";
import { text } from "./text.js";
import { Wire, cutLine } from "./wire.js";

/** So long after an event, a screen reader is told of no other. */
const SPOKEN_MS = 4000;

const log = new Log();
const chart = new Chart($("chart"));
const listeners = new Set(), refusals = new Set();
let line = "", lostRow = null, stopPlaying = null, run = 0, ticking = 0, spoken = 0, shownUrl = "", told = "";
let total = fresh(), rates = [];

const wire = new Wire($("read-wire"), 120, comment);

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
  wires: () => wire.isWatching ? 1 : 0,
  opened({ status, fields, lost, lastId }) {
    total.connections++;
    total.seesComments = Boolean(fields) || wire.isWatching;
    if (fields && wire.isWanted) wire.head(status, fields);
    wire.opened();
    const behind = lastId ? text("row.behind", { id: lastId }) : "";
    if (lostRow) {
      const values = { tries: lost.tries, seconds: ((performance.now() - lost.since) / 1000).toFixed(1), behind };
      log.update(lostRow, { kind: "back", note: text(lost.tries === 1 ? "row.back" : "row.backTries", values) });
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
    if (Date.now() - spoken > SPOKEN_MS) say("event", text("said.event", { type, data: data.slice(0, 200) }));
    spoken = Date.now();
  },
  comment,
  bytes(piece) {
    if (wire.isWanted) wire.read(piece);
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
  const isControl = reader.order?.endsAt && (type === "gap" || type === "end");
  if (!isControl) return { kind: "event", type, data, id };
  const [, asked, oldest] = /"asked":"(.*)","oldest":"?([^"}]*)/.exec(data) ?? [];
  if (type === "end" || !asked) return { kind: type, note: text(`row.${type}`, { data }) };
  return { kind: "gap", note: text(oldest === "null" ? "row.gapNone" : "row.gapOldest", { asked, oldest }) };
}

/** One row counts all tries. */
function lose({ why, tries, since }) {
  if (tries === 1) {
    total.ends++;
    chart.end();
    wire.ended(text(reader.lastId ? "wire.lostId" : "wire.lost", { id: reader.lastId }), "failed");
  }
  const isAway = tries > 1 || why === "unreachable";
  const content = isAway ? text("row.away", { tries, seconds: Math.round((performance.now() - since) / 1000) }) : text(`row.${why}`);
  if (lostRow) log.update(lostRow, { note: content });
  else lostRow = log.add({ kind: "lost", note: content });
}

function finish({ name, why }) {
  const kind = name === "gaveUp" ? "failed" : "closed";
  if (name === "gaveUp") chart.end();
  wire.ended(text(name === "gaveUp" ? "wire.gaveUp" : "wire.closed", { why }), kind);
  log.add({ kind: name, note: text(`row.${name}`, { why }) });
  lostRow = null;
  // The last bytes of a watched line may still come.
  setTimeout((source) => source === wire.source && wire.unwatch(), 200, wire.source);
  rest();
}

function rest() {
  run++;
  clearInterval(ticking);
  total.ended ||= performance.now();
  chart.stop();
  tell();
}

/** Runs four times a second, however fast events come. */
function tell() {
  rates = [...rates.slice(-4), total.events];
  const seconds = ((total.ended || performance.now()) - total.began) / 1000;
  const values = { seconds: seconds.toFixed(1), events: number(total.events), characters: number(total.characters),
    connections: number(total.connections), ends: number(total.ends), comments: number(total.comments) };
  showTotals({ events: total.events, rate: total.ended ? 0 : total.events - rates[0], lastId: reader.lastId,
    summary: reader.state.name === "idle" ? "" : text(total.seesComments ? "read.summaryComments" : "read.summary", values) });
  if (reader.state.name === "waiting") show(reader.state);
}

function show(state) {
  showState(state);
  $("read-cut").hidden = line === "";
  enable($("read-cut"), state.name === "open");
  if (told !== state.name) say("read", text("said.state", { state: describe(state) }));
  told = state.name;
}

/** Whether the server can put this stream on a line. */
const takesLine = (url) => labIsOn && [here("lab"), here("sse/mvc/words")].includes(url.split(/[?#]/)[0]);
let labIsOn = true;
export const turnLabOff = () => { labIsOn = false; };

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
export async function begin(given, { chartMs, isResumed = false, wire: shows } = {}) {
  stop();
  const order = withEnd(given);
  const mine = ++run;
  if (shows !== undefined) $("wire-more").open = shows;
  wire.isWanted = $("wire-more").open;
  line = takesLine(order.url) ? freshLine() : "";
  if (!isResumed) clear(chartMs);
  else if (total.ended) chart.begin();
  total.ended = 0;
  shownUrl = order.url;
  fill(order);
  showSnippets(order);
  if (line && wire.isWanted && order.as === "eventsource") await wire.watch(line);
  if (mine !== run) return;
  reader.open({ ...order, url: line ? `${order.url}${order.url.includes("?") ? "&" : "?"}line=${line}` : order.url });
  clearInterval(ticking);
  ticking = setInterval(tell, 250);
  tell();
}

/** Plays a recording. @param {string} content @param {string} name */
export function playHere(content, name) {
  stop();
  clear();
  line = "";
  wire.isWanted = $("wire-more").open;
  total.seesComments = true;
  reader.pretend(name);
  if (wire.isWanted) wire.head(200, [[name, text("read.played")]]);
  total.connections++;
  wire.opened();
  log.add({ kind: "open", note: text("row.playing", { name }) });
  const stopIt = play(content, {
    event(message) {
      reader.lastId = message.lastEventId;
      heard.event(message);
    },
    comment,
    bytes: heard.bytes,
    ended() {
      stopPlaying = null;
      reader.close("done", text("state.played"));
    },
  });
  stopPlaying = reader.state.name === "open" ? stopIt : null;
  clearInterval(ticking);
  if (stopPlaying) ticking = setInterval(tell, 250);
  tell();
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
    if (isOpen && !wire.isWanted && reader.isActive && reader.order.as === "fetch") wire.join();
    wire.isWanted = isOpen;
  };
  fill({ url: here("sse/mvc/words"), as: "fetch" });
  showSnippets(barOrder({ isQuiet: true }));
  show(reader.state);
  tell();
  chart.stop();
}
