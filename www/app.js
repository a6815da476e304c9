// The script of the page. The browser runs this file as it is; there is no build step.
"use strict";

const $ = (id) => document.getElementById(id);

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Sets a text only when it changes, because each change costs the browser work. */
function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Tells a screen reader something: once a second, and only the latest text of each subject. */
function say(subject, text) {
  if (said.size === 0) {
    setTimeout(() => {
      $("said").textContent = [...said.values()].join(". ");
      said.clear();
    }, 1000);
  }
  said.set(subject, text);
}
const said = new Map();

/** A button with aria-disabled keeps the focus. A button with disabled would lose it. */
const enable = (button, isEnabled) => button.setAttribute("aria-disabled", !isEnabled);
const press = (button, action) => {
  button.onclick = () => button.getAttribute("aria-disabled") === "true" || action();
};

const calm = matchMedia("(prefers-reduced-motion: reduce)");

// ---- Streams

const CONNECTING = 0, OPEN = 1, CLOSED = 2;
const STATES = ["connecting (0)", "open (1)", "closed (2)"];

const resumed = (url, id) => id ? `${url}${url.includes("?") ? "&" : "?"}last_event_id=${encodeURIComponent(id)}` : url;

/**
 * An EventSource that closes its connection when the page has been hidden for a while, and resumes when the page is
 * visible again. A browser has six connections to a host for all its tabs.
 */
class Stream {
  /** `heard` has the functions opened, event, failed, changed and woken. `hiddenMs`: how long a hidden page stays connected. */
  constructor(hiddenMs, heard) {
    this.heard = heard;
    this.state = CLOSED;
    this.asleep = false;
    this.lastId = "";
    document.addEventListener("visibilitychange", () => {
      clearTimeout(this.timer);
      if (document.hidden) {
        this.timer = setTimeout(() => this.sleep(), hiddenMs);
      } else if (this.asleep) {
        this.heard.woken();
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
    for (const type of new Set(["message", ...this.types])) this.listen(type);
  }

  listen(type) {
    if (!this.types.includes(type)) this.types.push(type);
    this.source.addEventListener(type, (event) => {
      // EventSource dispatches an "error" of its own, which has no data.
      if (event.data === undefined) return;
      // A gap has no id. The last id stays what it was.
      this.lastId = event.lastEventId || this.lastId;
      this.heard.event(event);
    });
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

/** Shows the readyState of a stream, and tells it to a screen reader. */
function show(stream, name, prefix) {
  const text = stream.asleep ? "asleep, as this page is hidden" : STATES[stream.state];
  if ($(`${prefix}-state`).textContent === text) return;
  $(`${prefix}-state`).textContent = text;
  $(`${prefix}-lamp`).className = `lamp s${stream.state}`;
  say(name, `${name}: ${text.replace(/ \(\d\)/, "")}`);
}

/** Why an EventSource gave up. It does not say, so this sends the same request again and looks at the response. */
async function why(url, lastId) {
  const look = new AbortController();
  try {
    const response = await fetch(resumed(url, lastId), {
      signal: look.signal, cache: "no-store", headers: { Accept: "text/event-stream" },
    });
    const type = response.headers.get("Content-Type") ?? "";
    if (response.status === 204) return "204: the client has every event, and the server tells it not to come back.";
    if (response.status === 200) return `EventSource gave up because of Content-Type: ${type}. Only text/event-stream is a stream.`;
    const said = type.startsWith("text/plain") ? (await response.text()).trim().slice(0, 300) : "";
    return `EventSource gave up because of status ${response.status}. Any status but 200 ends it for good. ${said}`;
  } catch {
    return "The server cannot be reached.";
  } finally {
    look.abort();
  }
}

// ---- Tapes: lists of what happened, each of bounded length

const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
const number = new Intl.NumberFormat("en").format;

/** How many bytes of a line are shown, and how many lines of a block. */
const LINE_BYTES = 240, BLOCK_LINES = 14;

/** Draws blocks: on the left the lines of bytes, if there are any; on the right what the browser made of them. */
class Tape {
  constructor(list, most) {
    Object.assign(this, { list, most });
    this.clear();
  }

  clear() {
    this.list.replaceChildren();
    this.added = [];
    this.changed = new Set();
    this.skipped = 0;
  }

  add(block) {
    block.lines ??= [];
    this.added.push(block);
    if (this.added.length > 2 * this.most) {
      this.skipped += this.most;
      this.added.splice(0, this.most);
    }
    this.touch(block);
  }

  /** Draws a block with the next frame. When many come, it draws less often: a person could not read all of them. */
  touch(block) {
    this.changed.add(block);
    if (this.changed.size > 4 * this.most) this.changed = new Set([...this.changed].slice(-this.most));
    if (this.isDue) return;
    this.isDue = true;
    setTimeout(() => requestAnimationFrame(() => this.draw()), this.isFast ? 120 : 0);
  }

  draw() {
    this.isDue = false;
    const box = this.list.parentElement;
    // The list stays scrolled to its end, unless the reader has scrolled up.
    const follows = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    const added = this.added.splice(0), most = this.isFast ? 20 : this.most;
    this.isFast = added.length > 12;
    this.list.classList.toggle("fast", this.isFast);
    this.skipped += added.splice(0, added.length - most).length;
    if (this.skipped > 0) added.unshift({ lines: [], note: `… ${number(this.skipped)} more, too fast to show` });
    this.skipped = 0;
    for (const block of added) {
      block.element = make("li", {}, make("pre"), make("div"));
      drawBlock(block);
    }
    for (const block of this.changed) if (block.element) drawBlock(block);
    this.changed.clear();
    this.list.append(...added.map((block) => block.element));
    while (this.list.children.length > this.most) this.list.firstChild.remove();
    if (follows) box.scrollTop = box.scrollHeight;
  }
}

/** Replaces characters that are invisible. */
const visible = (text) => text.replace(/[\0-\x1f\ufeff]/g, (c) =>
  c === "\ufeff" ? "[BOM]" : `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`);

function drawBlock(block) {
  const [sent, made] = block.element.children;
  const isInPieces = !block.isHead && block.lines.length > 0 && block.writes > 1;
  sent.replaceChildren(...block.lines.map((line) => {
    const cut = line.length > LINE_BYTES ? `… (${number(line.length)} bytes)` : "";
    const element = make("span", { className: line.kind ?? "head" }, visible(decoder.decode(Uint8Array.from(line.bytes))) + cut);
    element.dataset.end = line.end;
    return element;
  }));
  if (block.more) sent.append(make("small", {}, `… ${number(block.more)} lines more`));
  if (isInPieces) sent.append(make("small", {}, `in ${number(block.writes)} pieces`));
  made.replaceChildren();
  block.element.className = block.kind ?? "";
  if (block.kind === "event") {
    const id = block.id === "" ? "" : `, id ${block.id}`;
    made.append(make("span", { className: "text" }, block.note), " ", make("small", {}, block.type + id));
  } else if (block.note) {
    made.append(block.note);
  }
}

// ---- The wire

const bytesOf = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));

/**
 * Two columns: the blocks of bytes that the server wrote, and what the browser made of each. The bytes come from
 * /lab/lines/NAME, the events from the stream itself. The nth block with data becomes the nth event.
 */
class Wire extends Tape {
  /** `comment` is called for each comment. */
  constructor(list, most, comment = () => {}) {
    super(list, most);
    this.comment = comment;
  }

  clear() {
    super.clear();
    this.unwatch();
    this.end = null;
    clearTimeout(this.ending);
    this.forget();
  }

  forget() {
    this.block = null;
    /** Blocks whose event has not come yet, and events whose block has not come yet. */
    this.blocks = new Map();
    this.events = new Map();
    /** The number of the connection, and of the event in it: on the wire, and in the browser. */
    this.written = { connection: 0, event: 0 };
    this.made = { connection: 0, event: 0 };
  }

  /** Resolves when the line is watched, or cannot be. One line is watched at a time, because connections are few. */
  watch(line) {
    Wire.watched?.unwatch();
    Wire.watched = this;
    this.forget();
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
        this.flushEnd();
        this.block = null;
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

  /**
   * Reads one write of the server. A line ends in CR, LF or CRLF. The LF of a CRLF may come in the next write, when its
   * block is closed already.
   */
  read(bytes, isHead) {
    for (let at = 0; at < bytes.length; at++) {
      const byte = bytes[at];
      if (byte === 10 && this.carriageReturn) {
        this.carriageReturn = false;
        this.line.end = "\\r\\n";
        this.touch(this.line.block);
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
        this.line = { block, bytes: [], length: 0, end: "" };
        if (block.lines.length < BLOCK_LINES) block.lines.push(this.line);
        else block.more++;
      }
      if (!isEnd) {
        if (this.line.length++ < LINE_BYTES) this.line.bytes.push(byte);
        continue;
      }
      this.line.end = byte === 10 ? "\\n" : "\\r";
      if (!isHead) field(block, this.line);
      if (this.line.kind === "comment") this.comment();
      if (this.line.length === 0) this.finish(block);
    }
    if (!this.block) return;
    // A comment and a reconnection time take effect at once. They need no empty line, so they are shown by themselves.
    if (!isHead && !this.block.isPending && this.line.end) this.finish(this.block);
    else this.touch(this.block);
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
    }
  }

  // What the browser made of the bytes

  opened() {
    this.flushEnd();
    this.made = { connection: this.made.connection + 1, event: 0 };
    this.happened(`${this.made.connection}:open`, { note: "open: readyState is 1", kind: "open" });
  }

  event({ type, data, lastEventId }) {
    const shown = data.length > LINE_BYTES ? `${data.slice(0, LINE_BYTES)}… (${number(data.length)} characters)` : data;
    this.happened(`${this.made.connection}:${this.made.event++}`, { note: shown, type, id: lastEventId, kind: "event" });
  }

  /** Notes the end a little later: the last bytes come on another connection, and may be late. */
  ended(note, kind) {
    this.flushEnd();
    this.end = { note, kind };
    this.ending = setTimeout(() => this.flushEnd(), 80);
  }

  broken(lastId) {
    this.ended(`error: the connection ended, readyState is 0. It will ask again${lastId && ` with Last-Event-ID: ${lastId}`}`, "failed");
  }

  flushEnd() {
    clearTimeout(this.ending);
    if (!this.end) return;
    if (this.block) this.block.note = "discarded: no empty line came";
    if (this.block) this.touch(this.block);
    this.block = null;
    this.blocks.clear();
    this.events.clear();
    this.add(this.end);
    this.end = null;
  }

  happened(key, made) {
    if (this.source) this.pair(key, null, made);
    else this.add(made);
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
}

/** What a line means by the standard (HTML, 9.2.6), and what is left of it when its block has no data. */
function field(block, line) {
  const text = decoder.decode(Uint8Array.from(line.bytes)).replace(/^\ufeff/, "");
  const [, name, value] = /^([^:]*)(?::? ?)([^]*)$/.exec(text);
  const note = (sentence) => (block.notes ??= []).push(sentence);
  if (text === "") {
    line.kind = "empty";
  } else if (text.startsWith(":")) {
    line.kind = "comment";
    note("a comment, ignored");
  } else if (name === "data") {
    line.kind = "data";
    block.isPending = block.hasData = true;
  } else if (name === "event" || name === "id" && !value.includes("\0")) {
    line.kind = name === "id" ? "id" : "type";
    block.isPending = true;
    note(name === "id" ? `the last event ID is ${value}` : "no data, so no event");
  } else if (name === "retry" && /^\d+$/.test(value)) {
    line.kind = "retry";
    note(`reconnect after ${number(value)} ms`);
  } else {
    line.kind = "unknown";
    note("not a known field, ignored");
  }
}

/** A name that no other line has. Each request gets a new one: the server may still write to the line before. */
const freshLine = () => "page-" + [...crypto.getRandomValues(new Uint8Array(9))].map((b) => b.toString(36)).join("");

const cutLine = (line) => fetch(`/lab/lines/${line}`, { method: "DELETE" });

/** Whether the server has /lab. Where other machines reach the server, it has it only with --lab. */
const labIsOn = fetch("/lab?status=204", { cache: "no-store" }).then(({ status }) => status !== 404, () => true);

// ---- 1 and 2: the words, and their wire

/** Milliseconds between two words, and the same in words. */
const PACES = [[4000, "a word in four seconds"], [2000, "a word in two seconds"], [1000, "a word a second"],
  [500, "two words a second"], [250, "four words a second"], [100, "ten words a second"], [20, "fifty words a second"]];

function theWords() {
  let pace = 2, line = "", arrived = 0, isBroken = false, run = 0, hasLab = true;
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
        const mine = run;
        setTimeout(() => mine === run && wire.unwatch(), 500);
      }
    },
    failed(error) {
      console.log(`connection state: ${stream.state}, error:`, error);
      isBroken = stream.lastId !== "";
      if (stream.state === CLOSED) wire.ended("error: given up, readyState is 2", "failed");
      else wire.broken(stream.lastId);
    },
    changed() {
      show(stream, "The words", "words");
      enable($("words-cut"), stream.state === OPEN && line !== "");
      $("sentence").className = `s${stream.state}`;
      if (stream.asleep) wire.unwatch();
    },
    woken() {
      start(stream.lastId);
    },
  });

  /** Starts from the beginning, or behind the word with this id. */
  async function start(lastId) {
    const mine = ++run;
    stream.close();
    line = hasLab ? freshLine() : "";
    isBroken = false;
    if (lastId) {
      wire.ended(`closed by the page, which asks again for what comes after ${lastId}`, "closed");
    } else {
      wire.clear();
      $("sentence").replaceChildren(caret);
      $("words-id").textContent = "none";
      arrived = 0;
    }
    // A screen reader does not read out words that are faster than speech.
    $("sentence").setAttribute("aria-live", PACES[pace][0] < 500 ? "off" : "polite");
    if (line && !document.hidden) await wire.watch(line);
    const path = PACES[pace][0] === 1000 ? "/sse/mvc/words" : `/lab?interval=${PACES[pace][0]}`;
    if (mine === run) stream.open(line ? `${path}${path.includes("?") ? "&" : "?"}line=${line}` : path, [], lastId);
  }

  function step(by) {
    pace = Math.min(Math.max(pace + by, 0), PACES.length - 1);
    $("words-pace").textContent = PACES[pace][1];
    say("pace", PACES[pace][1]);
    enable($("words-slower"), hasLab && pace > 0);
    enable($("words-faster"), hasLab && pace < PACES.length - 1);
    if (stream.state !== CLOSED) start(stream.lastId);
  }

  press($("words-start"), () => start(""));
  press($("words-cut"), () => cutLine(line));
  press($("words-slower"), () => step(-1));
  press($("words-faster"), () => step(1));
  setInterval(() => {
    const since = (performance.now() - arrived) / 1000;
    const text = since < 10 ? `${since.toFixed(1)} s` : since < 120 ? `${Math.round(since)} s` : `${Math.round(since / 60)} min`;
    set($("words-since"), arrived ? text : "–");
  }, 100);
  labIsOn.then((isOn) => {
    hasLab = isOn;
    for (const name of ["words-slower", "words-faster"]) enable($(name), isOn);
    start("");
  });
}

// ---- 3: the laboratory

/** The parameters of /lab: name, label, default, and the range or the choices. */
const PARAMETERS = {
  "What is said": [
    ["text", "Text, a word an event", "The quick brown fox jumps over the lazy dog."],
    ["count", "Events", "one for each word", 1, 100000],
    ["event", "Event type", "message"],
    ["id", "Ids", ["on", "off"]],
    ["size", "Bytes of data", "the word", 0, 4194304],
    ["lines", "Lines of data", "1", 1, 1000],
    ["binary", "Bytes as base64", "none", 0, 3145728],
  ],
  "How it flows": [
    ["interval", "Interval, ms", "1000", 0, 60000],
    ["retry", "Retry, ms", "2000", 0, 600000],
    ["heartbeat", "Heartbeat, ms", "none", 10, 60000],
    ["chunk", "Bytes in a piece", "whole", 1, 65536],
    ["newline", "Line ends", ["lf", "cr", "crlf"]],
    ["bom", "Byte order mark", ["off", "on"]],
    ["complete", "At the end", ["204", "loop"]],
  ],
  "What goes wrong": [
    ["cut", "Cut after event", "never", 1, 99999],
    ["stall", "Stall after event", "never", 1, 100000],
    ["silence", "Silence, ms", "30000", 1, 600000],
    ["garbage", "Garbage", ["off", "on"]],
    ["status", "Status", "200", 200, 599],
    ["type", "Content-Type", "text/event-stream"],
    ["redirect", "Redirect", ["none", "301", "302", "303", "307", "308"]],
  ],
};

const PRESETS = [
  ["An LLM’s tokens", "Small events of their own type, sixteen a second. At the end the server answers 204, and the browser does not come back.", {
    text: "A model writes its answer a token at a time, and a reader does not want to wait for the last one before reading the first.",
    count: "46", event: "token", interval: "60" }],
  ["A flaky mobile line", "No byte for two seconds, then a cut. The browser comes back after a second and a half, and misses no event.", {
    count: "40", interval: "250", heartbeat: "100", stall: "8", silence: "2000", cut: "16", retry: "1500" }],
  ["A server that never comes back", "Status 503. A load balancer expects it. An EventSource gives up for good.", {
    status: "503" }],
  ["A silent server", "The stream stays open, but nothing comes after the fifth event. An EventSource cannot notice that. Heartbeats let other clients notice.", {
    count: "6", interval: "300", stall: "5", silence: "600000" }],
  ["A parser’s nightmare", "A byte order mark, CR as line end, data in three lines, unknown fields, bad ids, an event without an end, and each byte in a write of its own.", {
    interval: "200", lines: "3", chunk: "1", newline: "cr", bom: "on", garbage: "on" }],
  ["A firehose", "An event a millisecond for half a minute. Does your page stay smooth? This one does.", {
    count: "30000", interval: "1", size: "100" }],
];

/** What happened lately, in a fixed number of columns. */
class Timeline {
  constructor(canvas) {
    this.canvas = canvas;
    this.columns = 600;
    this.begin(10000);
    this.stop();
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** `width` is the time from edge to edge in milliseconds. */
  begin(width) {
    this.step = width / this.columns;
    this.start = performance.now();
    this.now = 0;
    this.state = CLOSED;
    const columns = () => new Float32Array(this.columns);
    Object.assign(this, { states: columns().fill(CLOSED), counts: columns(), sizes: columns(), comments: columns(), ends: columns() });
    this.tick(this.run = {});
  }

  stop() {
    this.advance();
    this.run = null;
    this.draw();
  }

  advance() {
    const now = Math.floor((performance.now() - this.start) / this.step);
    for (let at = Math.max(this.now + 1, now - this.columns + 1); at <= now; at++) {
      const column = at % this.columns;
      for (const values of [this.counts, this.sizes, this.comments, this.ends]) values[column] = 0;
      this.states[column] = this.state;
    }
    this.now = now;
    return now % this.columns;
  }

  event(size) {
    const column = this.advance();
    this.counts[column]++;
    this.sizes[column] = Math.max(this.sizes[column], size);
  }

  comment() {
    this.comments[this.advance()]++;
  }

  end() {
    this.ends[this.advance()]++;
  }

  become(state) {
    this.states[this.advance()] = this.state = state;
  }

  tick(run) {
    if (run !== this.run) return;
    this.draw();
    if (calm.matches) setTimeout(() => this.tick(run), 1000);
    else requestAnimationFrame(() => this.tick(run));
  }

  draw() {
    if (this.run) this.advance();
    const { canvas, columns, step, now } = this;
    const scale = devicePixelRatio, width = canvas.clientWidth, height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    const style = getComputedStyle(canvas);
    const [event, open, wait, ended, rule, muted] = ["event", "open", "wait", "cut", "rule", "muted"]
      .map((name) => style.getPropertyValue(`--${name}`));
    const pen = canvas.getContext("2d"), base = Math.round(height * 0.68);
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    const first = Math.max(0, now - columns + 1), x = (at) => (at - first) * width / columns;

    // A line each second, or each few seconds, so that the numbers have room.
    const every = [1, 2, 5, 10, 20, 60, 120].find((s) => s * 1000 / step * width / columns > 56) ?? 300;
    pen.font = `12px ${style.fontFamily}`;
    for (let second = Math.ceil(first * step / 1000 / every) * every; x(second * 1000 / step) < width; second += every) {
      const at = Math.round(x(second * 1000 / step)) + 0.5;
      pen.fillStyle = rule;
      pen.fillRect(at, 0, 1, height - 18);
      pen.fillStyle = muted;
      pen.fillText(`${second} s`, at + 4, height - 4);
    }
    for (let at = first; at <= now; at++) {
      const column = at % columns, left = Math.round(x(at)), count = this.counts[column];
      pen.fillStyle = [wait, open, rule][this.states[column]];
      if (this.states[column] !== CONNECTING || at % 6 < 3) pen.fillRect(left, base - 1, Math.ceil(width / columns), 2);
      if (count > 0) {
        const tall = 14 + Math.min(1, Math.log2(this.sizes[column] + 1) / 16) * (base - 26);
        pen.fillStyle = event;
        pen.fillRect(left, base - 2 - tall, 2, tall);
        // Below the line: how many events this column has.
        if (count > 1) pen.fillRect(left, base + 2, 2, Math.min(24, count));
      }
      if (this.comments[column] > 0) {
        pen.fillStyle = muted;
        pen.fillRect(left - 1, base + 4, 3, 3);
      }
      if (this.ends[column] > 0) {
        pen.fillStyle = ended;
        pen.fillRect(left - 1, 0, 2, base + 10);
      }
    }
  }
}

function theLaboratory() {
  labIsOn.then((isOn) => {
    $("lab-off").hidden = $("wire-off").hidden = isOn;
    for (const part of document.querySelectorAll(".lab-on")) part.hidden = !isOn;
  });
  const timeline = new Timeline($("timeline")), inputs = {};
  const wire = new Wire($("lab-wire"), 120, () => {
    total.comments++;
    timeline.comment();
  });
  let total, order, line = "", run = 0, ticking = 0, rates = [];

  for (const [legend, parameters] of Object.entries(PARAMETERS)) {
    const fields = parameters.map(([name, label, fallback, least, most]) => {
      const input = inputs[name] = Array.isArray(fallback)
        ? make("select", { name }, ...fallback.map((value) => make("option", { textContent: value })))
        : make("input", { name, placeholder: fallback, autocomplete: "off", spellcheck: false });
      if (most) Object.assign(input, { type: "number", min: least, max: most });
      const range = most ? `${number(least)} to ${number(most)}` : "";
      const hint = make("small", { id: `hint-${name}` }, make("code", {}, name), range && ` ${range}`);
      input.setAttribute("aria-describedby", hint.id);
      return make("label", { className: name === "text" ? "wide" : "" }, label, input, hint);
    });
    $("order").append(make("fieldset", {}, make("legend", {}, legend), ...fields));
  }
  for (const [name, note, values] of PRESETS) {
    const button = make("button", { type: "button", textContent: name });
    press(button, () => {
      for (const input of Object.values(inputs)) input.value = values[input.name] ?? input.options?.[0].value ?? "";
      $("preset-note").textContent = note;
      // At a thousand events a second, the wire would double the work.
      $("lab-watch").checked = values.interval !== "1";
      shown();
      start("");
      $("timeline").scrollIntoView({ block: "nearest" });
    });
    $("presets").append(button);
  }

  function url() {
    const isSaid = (input) => input.value !== "" && input.value !== input.options?.[0].value;
    const said = Object.values(inputs).filter(isSaid).map((input) => [input.name, input.value]);
    return said.length > 0 ? `/lab?${new URLSearchParams(said)}` : "/lab?interval=1000";
  }

  function shown() {
    const address = location.origin + url();
    $("lab-url").textContent = address;
    $("lab-curl").textContent = `curl -N '${address}'`;
  }

  const stream = new Stream(60000, {
    opened() {
      total.connections++;
      wire.opened();
    },
    event(event) {
      total.events++;
      total.characters += event.data.length;
      total.lastId = event.lastEventId;
      timeline.event(event.data.length);
      wire.event(event);
    },
    async failed() {
      const mine = run;
      total.ends = total.connections;
      timeline.end();
      if (stream.state !== CLOSED) {
        wire.broken(stream.lastId);
        return;
      }
      const reason = await why(stream.url.replace(/&line=.*/, ""), stream.lastId);
      if (mine !== run) return;
      wire.ended(`error: readyState is 2. ${reason}`, "failed");
      finish(reason);
    },
    changed() {
      show(stream, "The laboratory", "lab");
      timeline.become(stream.state);
      enable($("lab-cut"), stream.state === OPEN && line !== "");
      enable($("lab-stop"), stream.state !== CLOSED || stream.asleep);
      if (stream.asleep) wire.unwatch();
    },
    woken() {
      start(stream.lastId);
    },
  });

  async function start(lastId) {
    const mine = ++run;
    stream.close();
    // A frame larger than this would not be shown.
    const isHuge = Math.max(inputs.size.value, inputs.binary.value * 1.4) > 500000 && !inputs.chunk.value;
    line = $("lab-watch").checked && !isHuge ? freshLine() : "";
    $("lab-why").hidden = true;
    if (!lastId) {
      wire.clear();
      order = { url: url(), types: [inputs.event.value || "message"] };
      total = { events: 0, characters: 0, connections: 0, ends: 0, comments: 0, lastId: "", began: performance.now() };
      rates = [];
      timeline.begin(Math.min(Math.max(20 * (inputs.interval.value || 1000), 10000), 600000));
    }
    if (line) await wire.watch(line);
    if (mine !== run) return;
    stream.open(order.url + (line && `&line=${line}`), order.types, lastId);
    clearInterval(ticking);
    ticking = setInterval(tell, 250);
    tell();
  }

  function finish(reason) {
    run++;
    stream.close();
    if (wire.source) setTimeout((source) => source === wire.source && wire.unwatch(), 200, wire.source);
    clearInterval(ticking);
    timeline.stop();
    tell();
    $("lab-why").textContent = reason;
    $("lab-why").hidden = !reason;
    if (reason) say("reason", reason);
  }

  /** Runs four times a second, however fast events come. */
  function tell() {
    rates = [...rates.slice(-4), total.events];
    const seconds = (performance.now() - total.began) / 1000, many = (n, what) => `${number(n)} ${what}${n === 1 ? "" : "s"}`;
    set($("lab-events"), number(total.events));
    set($("lab-rate"), number(total.events - rates[0]));
    set($("lab-id"), total.lastId || "none");
    $("lab-summary").textContent = `In ${seconds.toFixed(1)} s: ${many(total.events, "event")} with ${many(total.characters, "character")}, `
      + `${many(total.connections, "connection")}, of which ${number(total.ends)} ended`
      + (line ? `; ${many(total.comments, "comment")}.` : ". Comments are seen only on the wire.");
  }

  $("order").onsubmit = (event) => {
    event.preventDefault();
    start("");
  };
  $("order").oninput = shown;
  press($("lab-stop"), () => {
    wire.ended("closed by the page: readyState is 2", "closed");
    finish("");
  });
  press($("lab-cut"), () => cutLine(line));
  stream.change();
  shown();
}

// ---- 4: a channel

function theChannel() {
  const log = new Tape($("channel-log"), 200);
  let name = "", spoken = 0;

  const stream = new Stream(20000, {
    opened() {
      count();
    },
    event({ type, data, lastEventId }) {
      let row = { kind: "event", type, note: data.slice(0, 2000), id: lastEventId };
      if (type === "gap") {
        const [, asked, oldest] = /"asked":"(.*)","oldest":"?([^"}]*)/.exec(data) ?? ["", "?", data];
        row = { kind: "gap", note: `Gap: an event after ${asked} may be lost; ${oldest === "null" ? "no event is kept" : `the oldest event kept is ${oldest}`}.` };
      } else if (type === "end") {
        row = { kind: "closed", note: `End: ${data}.` };
      }
      log.add(row);
      // When many come at once, a screen reader gets only the first.
      if (Date.now() - spoken > 4000) say("event", `${name}: ${row.note.slice(0, 200)}`);
      spoken = Date.now();
    },
    async failed() {
      log.add({ kind: "failed", note: stream.state === CLOSED ? await why(stream.url, stream.lastId) : "The connection ended. It will come back." });
    },
    changed() {
      show(stream, "The channel", "channel");
      $("channel-join").textContent = stream.state === CLOSED && !stream.asleep ? "Join" : "Leave";
      if (stream.state !== OPEN) $("channel-count").textContent = "";
    },
    woken() {
      stream.connect();
    },
  });

  /**
   * Subscribes behind the last event that came. The first time, that is the newest event of the channel: a client that
   * names an id misses nothing when its connection breaks before the first event.
   */
  async function join() {
    const wanted = $("channel-name").value.trim();
    stream.close();
    if (wanted !== name) {
      log.clear();
      stream.lastId = "";
    }
    name = wanted;
    for (const code of $("channel").querySelectorAll("code")) {
      code.textContent = code.textContent.replace(/channels\/[^?' ]*/, `channels/${encodeURIComponent(name)}`);
    }
    const lastId = stream.lastId || ((await look())?.last_id ?? "earliest");
    if (name === wanted) stream.open(path(), ["gap", "end", $("channel-type").value.trim() || "message"], lastId);
  }

  const path = () => `/channels/${encodeURIComponent(name)}`;

  function refuse(sentence) {
    $("channel-why").textContent = sentence;
    $("channel-why").hidden = !sentence;
  }

  /** A stream does not say how many subscribers there are, so the page asks while the answer is visible. */
  let isSeen = false;
  async function count() {
    if (stream.state !== OPEN || !isSeen || document.hidden) return;
    listening((await look())?.subscribers);
  }
  async function look() {
    const response = await fetch("/channels", { cache: "no-store" }).catch(() => null);
    const channels = response?.ok ? await response.json() : [];
    return channels.find((channel) => channel.name === name);
  }
  function listening(subscribers) {
    const text = subscribers > 0 && stream.state === OPEN ? `${number(subscribers)} listening` : "";
    set($("channel-count"), text);
  }

  $("listen").onsubmit = (event) => {
    event.preventDefault();
    const isLeaving = (stream.state !== CLOSED || stream.asleep) && $("channel-name").value.trim() === name;
    if (!isLeaving) return join();
    stream.close();
    log.add({ kind: "closed", note: "Left. When you join again, you get what you missed." });
  };
  $("channel-name").oninput = () => {
    if ($("channel-name").value.trim() !== name) $("channel-join").textContent = "Join";
  };
  $("publish").onsubmit = async (event) => {
    event.preventDefault();
    const type = $("channel-type").value.trim(), token = $("channel-token").value;
    if ($("channel-name").value.trim() !== name) join();
    // An EventSource dispatches only types that have a listener.
    if (type && stream.source && !stream.types.includes(type)) stream.listen(type);
    try {
      const response = await fetch(path() + (type && `?event=${encodeURIComponent(type)}`), {
        method: "POST", body: $("channel-text").value, headers: token ? { Authorization: `Bearer ${token}` } : {},
      });
      const answer = await response.text();
      if (response.ok) {
        refuse("");
        listening(JSON.parse(answer).subscribers);
        if (document.activeElement === $("channel-text")) $("channel-text").select();
      } else {
        refuse(answer);
        if (response.status === 401) {
          $("channel-token-label").hidden = false;
          $("channel-token").focus();
        }
      }
    } catch {
      refuse("The server cannot be reached.");
    }
  };

  // The page subscribes only when the channel is in view.
  new IntersectionObserver((entries) => {
    isSeen = entries.at(-1).isIntersecting;
    if (!isSeen) return;
    if (!name) join();
    count();
  }, { rootMargin: "25%" }).observe($("channel"));
  setInterval(count, 5000);
  stream.change();
}

// ---- The page

/** Puts the address of this page into the lines for a terminal, and a button beside each. */
function theLines() {
  for (const line of document.querySelectorAll(".line")) {
    const code = line.querySelector("code");
    code.textContent = code.textContent.replaceAll("http://127.0.0.1:8080", location.origin)
      .replace("127.0.0.1 8080", `${location.hostname} ${location.port || 80}`);
    const button = make("button", { type: "button", textContent: "Copy" });
    button.setAttribute("aria-label", `Copy the ${line.firstChild.textContent} line`);
    button.onclick = async () => {
      try {
        await navigator.clipboard.writeText(code.textContent);
      } catch {
        // Only pages from https or from loopback may use the clipboard.
        getSelection().selectAllChildren(code);
        document.execCommand("copy");
      }
      button.textContent = "Copied";
      say("copy", "Copied");
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    };
    line.append(button);
  }
}

theLines();
if (window.EventSource) {
  theWords();
  theLaboratory();
  theChannel();
} else {
  $("unsupported").hidden = false;
  for (const part of document.querySelectorAll(".live")) part.hidden = true;
}
