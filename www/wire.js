/**
 * The wire: a row for each block of bytes that the server wrote, and beside it what the standard makes of it. The bytes come
 * from fetch or from /lab/lines/NAME. Where there are none, a row has only the event.
 */
import { here, make, number, setWithIds } from "./dom.js";
import { Parser } from "./parser.js";
import { text } from "./text.js";

/** So much of a line and of a block is shown. */
const LINE_CHARACTERS = 240, BLOCK_LINES = 14;
/** Rows of a slow draw, and the pause between two of them: more cannot be read. */
const FAST_ROWS = 20, FAST_MS = 120;

/**
 * `more` lines are not shown; it came in `writes` pieces. `note` says what became of it, and `ignored` why a line is struck
 * out.
 * @typedef {{ lines?: Line[], more?: number, writes?: number, kind?: "event" | "open" | "failed" | "closed", note?: string,
 *   type?: string, id?: string, ignored?: string }} Block
 * @typedef {{ text: string, end: string, kind: string }} Line
 */

const shorten = (content) => content.length > LINE_CHARACTERS
  ? `${content.slice(0, LINE_CHARACTERS)}… ${text("wire.characters", { count: number(content.length) })}` : content;

const visible = (content) => content.replace(/[\0-\x1f\ufeff]/g, (c) =>
  c === "\ufeff" ? "[BOM]" : `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`);

const bytesOf = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));

export const cutLine = (line) => fetch(here(`lab/lines/${line}`), { method: "DELETE" });

export class Wire {
  /** @param {HTMLElement} list @param {number} most rows @param {() => void} [comment] is called for each comment on a watched line */
  constructor(list, most, comment) {
    Object.assign(this, { list, most, comment, follows: true });
    // The list stays scrolled to its end, unless a person scrolls up.
    const box = list.parentElement;
    box.onscroll = () => { this.follows = box.scrollHeight - box.scrollTop - box.clientHeight < 40; };
    this.clear();
  }

  clear() {
    this.unwatch();
    this.list.replaceChildren();
    this.added = [];
    this.changed = new Set();
    this.skipped = 0;
    this.end = this.parser = null;
    this.join();
    this.hasBytes = false;
  }

  /** Takes bytes in the middle of a stream: what came before is not shown. */
  join() {
    this.parser = new Parser({ line: (line) => this.take(line), event: (message) => this.made(message) }, this.parser?.lastEventId);
    this.block = this.line = null;
    this.writes = 0;
    this.hasBytes = true;
  }

  /** Watches a line. @param {string} line @param {EventSource} [begun] @returns {Promise<boolean>} whether this server lets it */
  watch(line, begun) {
    this.unwatch();
    this.join();
    return new Promise((resolve) => {
      const source = this.source = begun ?? new EventSource(here(`lab/lines/${line}`));
      source.onopen = () => resolve(true);
      setTimeout(resolve, 3000, true);
      source.onerror = () => {
        if (source === this.source) this.unwatch();
        resolve(false);
      };
      source.addEventListener("head", ({ data }) => this.head(atob(data)));
      source.addEventListener("bytes", ({ data }) => this.read(bytesOf(data)));
      source.addEventListener("gap", () => this.unwatch());
      begun?.replay();
    });
  }

  get isWatching() {
    return Boolean(this.source);
  }

  unwatch() {
    this.source?.close();
    this.source = null;
    this.hasBytes = false;
  }

  /** Another connection begins with this head. @param {string} content */
  head(content) {
    this.flushEnd();
    this.join();
    const isOpen = /^(\S+ )?200\b/.test(content) && /^content-type: text\/event-stream/im.test(content);
    this.add({ lines: content.match(/.*\r\n/g).map((line) => shown(line.trimEnd(), "\r\n", "head")), ...(isOpen ? OPEN : {}) });
  }

  /** The head as fetch tells it. @param {[string, string][]} fields */
  headOfFetch(fields) {
    this.head(["200", ...fields.map(([name, value]) => `${name}: ${value}`), "", ""].join("\r\n"));
  }

  /** Reads one piece. @param {Uint8Array} bytes */
  read(bytes) {
    const { parser } = this;
    // The LF of a CRLF may come in the next piece, when its block is closed already.
    if (bytes[0] === 10 && parser.isAfterCr && this.line) {
      this.line.end = "\\r\\n";
      this.touch(this.line.block);
    }
    this.writes++;
    parser.feed(bytes);
    // A comment and a reconnection time take effect at once. They need no empty line, so they are shown by themselves.
    if (this.block && !this.block.isPending && !parser.line) this.block = null;
    if (!this.block && !parser.line) this.writes = 0;
  }

  take({ content, raw, end, name, value }) {
    if (!this.block) this.add(this.block = { lines: [], more: 0, notes: [] });
    const { block } = this, kind = content === "" ? "empty" : meaning(name, value);
    this.line = { ...shown(raw, end, kind), block };
    if (block.lines.length < BLOCK_LINES) block.lines.push(this.line);
    else block.more++;
    block.isPending ||= ["data", "type", "id"].includes(kind);
    if (kind === "unknown") block.ignored = text("wire.unknown");
    if (kind === "comment" && this.isWatching) this.comment?.();
    if (kind !== "empty" && kind !== "data") block.notes.push(text(`wire.${kind}`, { id: value, ms: number(value) }));
    if (!block.isPending || kind === "empty") block.note = block.notes.join(" · ") || text("wire.empty");
    block.writes = this.writes;
    this.touch(block);
    if (kind !== "empty") return;
    this.block = null;
    this.writes = 1;
  }

  /** A block became an event. */
  made({ type, data, lastEventId }) {
    Object.assign(this.line.block, { kind: "event", note: shorten(data), type, id: lastEventId });
  }

  /** What the stream itself tells is shown where no bytes are. */
  opened() {
    this.flushEnd();
    if (!this.hasBytes) this.add({ ...OPEN });
  }

  event({ type, data, lastEventId }) {
    if (!this.hasBytes) this.add({ kind: "event", note: shorten(data), type, id: lastEventId });
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
    if (this.parser.line) this.take({ raw: this.parser.line, content: this.parser.line, end: "", name: "data" });
    if (this.block) {
      this.block.note = text("wire.discarded");
      this.touch(this.block);
    }
    this.block = null;
    this.parser.line = "";
    this.add(this.end);
    this.end = null;
  }

  /** @param {Block} block */
  add(block) {
    this.added.push(block);
    // A page that is hidden does not draw.
    if (this.added.length > 2 * this.most) this.skipped += this.added.splice(0, this.most).length;
    this.touch(block);
  }

  /** Draws a block with the next frame. When many come, it draws less often. */
  touch(block) {
    if (block.element) this.changed.add(block);
    if (this.isDue) return;
    this.isDue = true;
    setTimeout(() => requestAnimationFrame(() => this.draw()), this.isFast ? FAST_MS : 0);
  }

  draw() {
    const { list, added, most } = this, box = list.parentElement;
    this.isDue = false;
    this.added = [];
    this.skipped += added.splice(0, added.length - (this.isFast ? FAST_ROWS : most)).length;
    this.isFast = added.length > 12;
    list.classList.toggle("fast", this.isFast);
    if (this.skipped > 0) list.append(make("li", {}, make("small", {}, text("wire.skipped", { count: number(this.skipped) }))));
    this.skipped = 0;
    for (const block of added) list.append(block.element = make("li", {}, make("pre"), make("div")));
    for (const block of [...added, ...this.changed]) drawBlock(block);
    this.changed.clear();
    while (list.children.length > most) list.firstChild.remove();
    if (this.follows) box.scrollTop = box.scrollHeight;
  }
}

const OPEN = { kind: "open", note: text("wire.open") };

/** A line as it is shown. @returns {Line} */
const shown = (content, end, kind) => ({ text: visible(shorten(content)), end: JSON.stringify(end).slice(1, -1), kind });

function drawBlock({ element, lines = [], more, writes, kind = "", note = "", type, id, ignored }) {
  const [sent, made] = element.children, small = (content) => make("small", {}, content);
  element.className = kind;
  sent.replaceChildren(...lines.map((line) => {
    const span = make("span", { className: line.kind }, line.text);
    span.dataset.end = line.end;
    return span;
  }));
  if (more) sent.append(small(text("wire.more", { count: number(more) })));
  if (writes > 1) sent.append(small(text("wire.pieces", { count: number(writes) })));
  made.replaceChildren(kind === "event" ? make("span", { className: "text" }, note) : note);
  if (kind !== "event") return;
  const name = small("");
  setWithIds(name, id === "" ? type : `${type}, id ${id}`);
  made.append(" ", name);
  if (ignored) made.append(make("br"), small(ignored));
}

/** The kind of a line by the standard (HTML, 9.2.6). */
function meaning(name, value) {
  if (name === "") return "comment";
  if (name === "event") return "type";
  const isKnown = name === "data" || name === "id" && !value.includes("\0") || name === "retry" && /^\d+$/.test(value);
  return isKnown ? name : "unknown";
}
