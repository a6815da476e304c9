// The page of newswire, as the browser runs it: nothing is built or bundled.
"use strict";

const $ = (id) => document.getElementById(id);

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Says something to those who listen to the page instead of looking at it. Rarely: only when a state changes. */
const say = (text) => { $("said").textContent = text; };

// ---- Drawing: whatever happens between two frames of the screen is drawn once.

const due = new Set();

function later(draw) {
  if (due.size === 0) {
    requestAnimationFrame(() => {
      const drawn = [...due];
      due.clear();
      for (const draw of drawn) draw();
    });
  }
  due.add(draw);
}

const calm = matchMedia("(prefers-reduced-motion: reduce)");

/** Adds to a list of bounded length. It stays at its end, unless somebody has scrolled up to read. */
function append(list, items, most) {
  const box = list.parentElement;
  const follows = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  list.append(...items);
  while (list.children.length > most) list.firstChild.remove();
  if (follows) box.scrollTop = box.scrollHeight;
}

// ---- Streams

const CONNECTING = 0, OPEN = 1, CLOSED = 2;
const STATES = ["connecting (0)", "open (1)", "closed (2)"];

const resumed = (url, id) => id ? `${url}${url.includes("?") ? "&" : "?"}last_event_id=${encodeURIComponent(id)}` : url;

/**
 * An EventSource that lets go of its connection when the page has been out of sight for a while, because a browser has
 * six of them for a host and all its tabs; and that goes on where it stopped when the page is seen again.
 */
class Stream {
  /** `heard` has the functions opened, event, failed and changed; `patience` is in milliseconds. */
  constructor(patience, heard) {
    this.heard = heard;
    this.state = CLOSED;
    this.asleep = false;
    this.lastId = "";
    document.addEventListener("visibilitychange", () => {
      clearTimeout(this.timer);
      if (document.hidden) {
        this.timer = setTimeout(() => this.sleep(), patience);
      } else if (this.asleep) {
        this.connect();
      }
    });
  }

  open(url, types, lastId = "") {
    this.close();
    Object.assign(this, { url, types, lastId });
    if (document.hidden) {
      this.asleep = true;
      this.change();
    } else {
      this.connect();
    }
  }

  connect() {
    this.asleep = false;
    const source = this.source = new EventSource(resumed(this.url, this.lastId));
    this.change();
    source.onopen = () => {
      this.change();
      this.heard.opened();
    };
    source.onerror = (error) => {
      this.change();
      this.heard.failed(error);
    };
    for (const type of new Set(["message", ...this.types])) {
      source.addEventListener(type, (event) => {
        // "error" is also what an EventSource itself says, and then without data.
        if (event.data === undefined) return;
        this.lastId = event.lastEventId;
        this.heard.event(event);
      });
    }
  }

  sleep() {
    if (this.source && this.state !== CLOSED) {
      this.close();
      this.asleep = true;
      this.change();
    }
  }

  close() {
    this.source?.close();
    this.asleep = false;
    this.change();
  }

  change() {
    this.state = this.source?.readyState ?? CLOSED;
    this.heard.changed();
  }
}

/** Shows a readyState, and says it. */
function show(stream, name, prefix) {
  const text = stream.asleep ? "asleep, as this page is hidden" : STATES[stream.state];
  if ($(`${prefix}-state`).textContent === text) return;
  $(`${prefix}-state`).textContent = text;
  $(`${prefix}-lamp`).className = `lamp s${stream.state}`;
  say(`${name}: ${text.replace(/ \(\d\)/, "")}`);
}

/** Why an EventSource gave up, which it tells nobody: the same request again, and a look at what comes. */
async function why(url, lastId) {
  const look = new AbortController();
  try {
    const response = await fetch(resumed(url, lastId), {
      signal: look.signal, cache: "no-store", headers: { Accept: "text/event-stream" },
    });
    const type = response.headers.get("Content-Type") ?? "";
    if (response.status === 204) return "204: it has heard everything, and is told not to come back.";
    if (response.status === 200) return `It gave up because of Content-Type: ${type}. Only text/event-stream is a stream.`;
    const said = type.startsWith("text/plain") ? (await response.text()).trim().slice(0, 300) : "";
    return `It gave up because of status ${response.status}: any but 200 ends an EventSource for good. ${said}`;
  } catch {
    return "The server cannot be reached.";
  } finally {
    look.abort();
  }
}

// ---- The wire

const bytesOf = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
const number = new Intl.NumberFormat("en").format;

/** Bytes of a line that are shown, and lines of a block. */
const LINE_BYTES = 240, BLOCK_LINES = 14;

/**
 * Two columns: the bytes of a stream in blocks, as the server wrote them, and beside each what the browser made of it.
 * The bytes come from /lab/lines/NAME, the events from the stream itself; the nth block that has data is the nth event.
 */
class Wire {
  /** `most` blocks are kept; `comment` is called for each block that is only a comment. */
  constructor(list, most, comment = () => {}) {
    Object.assign(this, { list, most, comment });
    this.clear();
  }

  clear() {
    this.unwatch();
    this.list.replaceChildren();
    this.waiting = [];
    this.changed = new Set();
    /** Blocks that wait for their event, and events that wait for their block. */
    this.blocks = new Map();
    this.events = new Map();
    /** Connections so far, and events in this one: as the wire has them, as the browser has them. */
    this.written = { connection: 0, event: 0 };
    this.made = { connection: 0, event: 0 };
    this.block = null;
    clearTimeout(this.ending);
  }

  /** Resolves when the line is watched, or cannot be. One line is watched at a time, to spare connections. */
  watch(line) {
    Wire.watched?.unwatch();
    Wire.watched = this;
    return new Promise((resolve) => {
      const source = this.source = new EventSource(`/lab/lines/${line}`);
      source.onopen = resolve;
      setTimeout(resolve, 3000);
      source.onerror = () => {
        this.unwatch();
        resolve();
      };
      source.addEventListener("head", ({ data }) => {
        this.written = { connection: this.written.connection + 1, event: 0 };
        this.block = null;
        this.flushEnd();
        this.read(bytesOf(data), true);
      });
      source.addEventListener("bytes", ({ data }) => this.read(bytesOf(data), false));
      source.addEventListener("gap", () => this.unwatch());
    });
  }

  unwatch() {
    this.source?.close();
    this.source = null;
  }

  /** Line ends are CR, LF or CRLF; the LF of a CRLF may come in another piece, when its block is closed already. */
  read(bytes, isHead) {
    for (let at = 0; at < bytes.length; at++) {
      const byte = bytes[at];
      if (byte === 10 && this.carriageReturn) {
        this.carriageReturn = false;
        this.line.end = "␍␊";
        continue;
      }
      this.carriageReturn = byte === 13;
      const isEnd = byte === 10 || byte === 13;
      if (!this.block) {
        this.block = { isHead, lines: [], writes: 0, more: 0 };
        this.line = null;
        this.add(this.block);
      }
      const block = this.block;
      if (at === 0 || block.writes === 0) block.writes++;
      if (!this.line || this.line.end) {
        this.line = { bytes: [], length: 0, end: "" };
        if (block.lines.length < BLOCK_LINES) block.lines.push(this.line);
        else block.more++;
      }
      if (!isEnd) {
        if (this.line.length++ < LINE_BYTES) this.line.bytes.push(byte);
        continue;
      }
      this.line.end = byte === 10 ? "␊" : "␍";
      if (!isHead) field(block, this.line);
      if (this.line.length === 0) this.finish(block);
    }
    if (this.block) this.touch(this.block);
  }

  finish(block) {
    this.block = null;
    this.touch(block);
    const { connection, event } = this.written;
    if (block.isHead) {
      this.pair(`${connection}:open`, block, null);
    } else if (block.hasData) {
      this.written.event++;
      this.pair(`${connection}:${event}`, block, null);
    } else {
      block.note = block.notes?.join("; ") ?? "nothing: an empty block";
      if (block.isComment) this.comment();
    }
  }

  // What the browser made of it.

  opened() {
    this.flushEnd();
    this.made = { connection: this.made.connection + 1, event: 0 };
    this.happened(`${this.made.connection}:open`, { note: "open: readyState is 1", kind: "open" });
  }

  event({ type, data, lastEventId }) {
    const shown = data.length > LINE_BYTES ? `${data.slice(0, LINE_BYTES)}… (${number(data.length)} characters)` : data;
    this.happened(`${this.made.connection}:${this.made.event++}`, { note: shown, type, id: lastEventId, kind: "event" });
  }

  /** A little later, since the last bytes may take longer on their own way here. */
  ended(note, kind) {
    this.flushEnd();
    this.end = { note, kind };
    this.ending = setTimeout(() => this.flushEnd(), 80);
  }

  flushEnd() {
    clearTimeout(this.ending);
    if (!this.end) return;
    if (this.block) this.block.note = "discarded: no empty line came";
    if (this.block) this.touch(this.block);
    this.block = null;
    this.blocks.clear();
    this.events.clear();
    this.add({ lines: [], ...this.end });
    this.end = null;
  }

  happened(key, made) {
    if (this.source) this.pair(key, null, made);
    else this.add({ lines: [], ...made });
  }

  pair(key, block, made) {
    block ??= this.blocks.get(key);
    made ??= this.events.get(key);
    const waiting = block ? this.blocks : this.events;
    if (block && made) {
      this.blocks.delete(key);
      this.events.delete(key);
      Object.assign(block, made);
      this.touch(block);
    } else {
      waiting.set(key, block ?? made);
      if (waiting.size > this.most) waiting.delete(waiting.keys().next().value);
    }
  }

  // Drawing

  add(block) {
    this.waiting.push(block);
    if (this.waiting.length > 2 * this.most) this.waiting = this.waiting.slice(-this.most);
    this.touch(block);
  }

  touch(block) {
    this.changed.add(block);
    if (this.changed.size > 4 * this.most) this.changed = new Set([...this.changed].slice(-this.most));
    later(this.draw ??= () => this.drawNow());
  }

  drawNow() {
    const added = this.waiting.splice(0).slice(-this.most);
    for (const block of added) block.element = make("li", {}, make("pre"), make("div"));
    for (const block of this.changed) if (block.element) drawBlock(block);
    this.changed.clear();
    if (added.length > 0) append(this.list, added.map((block) => block.element), this.most);
  }
}

/** What a line means, by the standard's rules (HTML, 9.2.6), and what it leaves behind if its block has no data. */
function field(block, line) {
  const text = decoder.decode(Uint8Array.from(line.bytes)).replace(/^\ufeff/, "");
  const [, name, value] = /^([^:]*)(?::? ?)([^]*)$/.exec(text);
  const note = (sentence) => (block.notes ??= []).push(sentence);
  if (text === "") {
    line.kind = "empty";
  } else if (text.startsWith(":")) {
    line.kind = "comment";
    block.isComment = true;
    note("a comment, ignored");
  } else if (name === "data") {
    line.kind = "data";
    block.hasData = true;
  } else if (name === "event" || name === "id" && !value.includes("\0")) {
    line.kind = name;
    note(name === "id" ? `the last event ID is ${value}` : "no data, so no event");
  } else if (name === "retry" && /^\d+$/.test(value)) {
    line.kind = "retry";
    note(`reconnect after ${number(value)} ms`);
  } else {
    line.kind = "unknown";
    note("an unknown field, ignored");
  }
}

/** Control characters have pictures in Unicode. */
const visible = (text) => text.replace(/[\0-\x1f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
  .replace(/\ufeff/g, "[BOM]");

function drawBlock(block) {
  const [sent, made] = block.element.children;
  const isWhole = !block.isHead && block.lines.length > 0 && block.writes > 1;
  sent.replaceChildren(...block.lines.map((line) => {
    const cut = line.length > LINE_BYTES ? `… (${number(line.length)} bytes)` : "";
    const element = make("span", { className: line.kind ?? "head" }, visible(decoder.decode(Uint8Array.from(line.bytes))) + cut);
    element.dataset.end = line.end;
    return element;
  }));
  if (block.more) sent.append(make("small", {}, `… ${number(block.more)} lines more`));
  if (isWhole) sent.append(make("small", {}, `in ${number(block.writes)} pieces`));
  made.replaceChildren();
  block.element.className = block.kind ?? "";
  if (block.kind === "event") {
    if (block.type !== "message") made.append(make("b", {}, block.type), " ");
    made.append(make("span", { className: "text" }, block.note));
    if (block.id !== "") made.append(" ", make("small", {}, `id ${block.id}`));
  } else if (block.note) {
    made.append(block.note);
  }
}

/** A name for a line that nobody else has. One for each request of ours: the server may still write to the one before. */
const freshLine = () => "page-" + [...crypto.getRandomValues(new Uint8Array(9))].map((b) => b.toString(36)).join("");

const cutLine = (line) => fetch(`/lab/lines/${line}`, { method: "DELETE" });

// ---- 1 and 2: the words, and their wire

/** Milliseconds between two words, and how one says it. */
const PACES = [[4000, "a word in four seconds"], [2000, "a word in two seconds"], [1000, "a word a second"],
  [500, "two words a second"], [250, "four words a second"], [100, "ten words a second"], [20, "fifty words a second"]];

function theWords() {
  let pace = 2, line = "", arrived = 0, isBroken = false, run = 0;
  const caret = make("i", { className: "caret" });
  const wire = new Wire($("words-wire"), 80);

  const stream = new Stream(1000, {
    opened() {
      console.log("connection is established");
      wire.opened();
    },
    event(event) {
      console.log(`id: ${event.lastEventId}, data: ${event.data}`);
      wire.event(event);
      arrived = performance.now();
      if (isBroken) {
        caret.before(make("span", { className: "seam", textContent: `cut, and back after ${event.lastEventId - 1}` }), " ");
        isBroken = false;
      }
      const word = make("span", { className: "word", textContent: event.data });
      word.dataset.id = event.lastEventId;
      caret.before(word, " ");
      $("words-id").textContent = event.lastEventId;
      if (event.data.endsWith(".")) {
        stream.close();
        console.log("connection is closed");
        wire.ended("closed by the page, at the word that ends in a full stop: readyState is 2", "closed");
        setTimeout(() => stream.state === CLOSED && wire.unwatch(), 500);
      }
    },
    failed(error) {
      console.log(`connection state: ${stream.state}, error: ${error.type}`);
      isBroken = stream.lastId !== "";
      wire.ended(stream.state === CLOSED ? "error: given up, readyState is 2"
        : `error: the connection ended, readyState is 0. It will ask again${isBroken ? ` with Last-Event-ID: ${stream.lastId}` : ""}`, "failed");
    },
    changed() {
      show(stream, "The words", "words");
      $("words-cut").disabled = stream.state !== OPEN;
      $("sentence").classList.toggle("done", stream.state === CLOSED && !stream.asleep);
      if (stream.asleep) wire.unwatch();
    },
  });

  /** From the beginning, or behind the word that was heard last. */
  async function start(lastId) {
    const mine = ++run;
    stream.close();
    line = freshLine();
    isBroken = false;
    if (!lastId) {
      wire.clear();
      $("sentence").replaceChildren(caret);
      $("words-id").textContent = "none";
      arrived = 0;
    }
    // Words faster than speech are shown, and not read out.
    $("sentence").setAttribute("aria-live", PACES[pace][0] < 500 ? "off" : "polite");
    if (!document.hidden) await wire.watch(line);
    if (mine === run) stream.open(`/lab?interval=${PACES[pace][0]}&line=${line}`, [], lastId);
  }

  function step(by) {
    pace = Math.min(Math.max(pace + by, 0), PACES.length - 1);
    $("words-pace").textContent = PACES[pace][1];
    $("words-slower").disabled = pace === 0;
    $("words-faster").disabled = pace === PACES.length - 1;
    if (stream.state !== CLOSED) start(stream.lastId);
  }

  $("words-start").onclick = () => start("");
  $("words-cut").onclick = () => cutLine(line);
  $("words-slower").onclick = () => step(-1);
  $("words-faster").onclick = () => step(1);
  setInterval(() => {
    const since = (performance.now() - arrived) / 1000;
    $("words-since").textContent = arrived === 0 ? "–" : since < 100 ? `${since.toFixed(1)} s` : `${Math.round(since / 60)} min`;
  }, 100);
  start("");
}
