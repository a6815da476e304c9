/**
 * The blocks of bytes that the server wrote, and beside each what became of it by which rule. The bytes come from fetch, or
 * from /lab/lines/NAME. The events come from the stream itself: the nth block with data becomes the nth event.
 */
import { here, number } from "./dom.js";
import { LINE_BYTES, Tape, decode } from "./tape.js";
import { text } from "./text.js";

/** So many lines of a block are shown. */
const BLOCK_LINES = 14;

const bytesOf = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));

export const cutLine = (line) => fetch(here(`lab/lines/${line}`), { method: "DELETE" });

export class Wire extends Tape {
  /** @param {HTMLElement} list @param {number} most blocks @param {() => void} [comment] is called for each comment on a watched line */
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
    this.hasBytes = false;
    /** Blocks whose event has not come yet, and events whose block has not come yet. */
    this.blocks = new Map();
    this.events = new Map();
    /** The number of the connection, and of the event in it: on the wire, and in the browser. */
    this.written = { connection: 0, event: 0 };
    this.made = { connection: 0, event: 0 };
  }

  /** Watches a line. @param {string} line @param {EventSource} [begun] @returns {Promise<boolean>} whether this server lets it */
  watch(line, begun) {
    this.unwatch();
    this.forget();
    this.hasBytes = true;
    return new Promise((resolve) => {
      const source = this.source = begun ?? new EventSource(here(`lab/lines/${line}`));
      source.onopen = () => resolve(true);
      setTimeout(resolve, 3000, true);
      source.onerror = () => {
        if (source === this.source) this.unwatch();
        resolve(false);
      };
      source.addEventListener("head", ({ data }) => {
        this.begin();
        this.read(bytesOf(data), true);
      });
      source.addEventListener("bytes", ({ data }) => this.read(bytesOf(data), false));
      source.addEventListener("gap", () => this.unwatch());
      begun?.replay();
    });
  }

  get isWatching() {
    return this.source !== null && this.source !== undefined;
  }

  unwatch() {
    this.source?.close();
    this.source = null;
    this.hasBytes = false;
  }

  /** Takes bytes in the middle of a stream: what came before is not shown. */
  join() {
    this.forget();
    this.hasBytes = true;
  }

  /** Another connection begins. */
  begin() {
    this.written = { connection: this.written.connection + 1, event: 0 };
    this.flushEnd();
    this.block = null;
  }

  /** The head as fetch tells it. @param {number} status @param {[string, string][]} fields */
  head(status, fields) {
    this.hasBytes = true;
    this.begin();
    const lines = [`${status}`, ...fields.map(([name, value]) => `${name}: ${value}`), "", ""];
    this.read(new TextEncoder().encode(lines.join("\r\n")), true);
  }

  /** Reads one piece. The LF of a CRLF may come in the next piece, when its block is closed already. */
  read(bytes, isHead = false) {
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
      if (!isHead) interpret(block, this.line);
      if (this.line.kind === "comment" && this.isWatching) this.comment();
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
      block.note = block.notes?.join(" · ") ?? text("wire.empty");
    }
  }

  opened() {
    this.flushEnd();
    this.made = { connection: this.made.connection + 1, event: 0 };
    this.happened(`${this.made.connection}:open`, { note: text("wire.open"), kind: "open" });
  }

  event({ type, data, lastEventId }) {
    const shown = data.length > LINE_BYTES ? `${data.slice(0, LINE_BYTES)}… ${text("wire.characters", { count: number(data.length) })}` : data;
    this.happened(`${this.made.connection}:${this.made.event++}`, { note: shown, type, id: lastEventId, kind: "event" });
  }

  /** Notes the end a little later: the last bytes come on another connection, and may be late. */
  ended(note, kind) {
    this.flushEnd();
    this.end = { note, kind };
    this.ending = setTimeout(() => this.flushEnd(), this.isWatching ? 80 : 0);
  }

  flushEnd() {
    clearTimeout(this.ending);
    if (!this.end) return;
    if (this.block) this.block.note = text("wire.discarded");
    if (this.block) this.touch(this.block);
    this.block = null;
    this.blocks.clear();
    this.events.clear();
    this.add(this.end);
    this.end = null;
  }

  happened(key, made) {
    if (this.hasBytes) this.pair(key, null, made);
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
function interpret(block, line) {
  const content = decode(line.bytes).replace(/^\ufeff/, "");
  const [, name, value] = /^([^:]*)(?::? ?)([^]*)$/.exec(content);
  const note = (sentence) => (block.notes ??= []).push(sentence);
  if (content === "") {
    line.kind = "empty";
  } else if (content.startsWith(":")) {
    line.kind = "comment";
    note(text("wire.comment"));
  } else if (name === "data") {
    line.kind = "data";
    block.isPending = block.hasData = true;
  } else if (name === "event" || name === "id" && !value.includes("\0")) {
    line.kind = name === "id" ? "id" : "type";
    block.isPending = true;
    note(name === "id" ? text("wire.id", { id: value }) : text("wire.noData"));
  } else if (name === "retry" && /^\d+$/.test(value)) {
    line.kind = "retry";
    note(text("wire.retry", { ms: number(value) }));
  } else {
    line.kind = "unknown";
    block.ignored = text("wire.unknown");
    note(block.ignored);
  }
}
