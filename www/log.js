/** The log draws the rows in view, and drops old events. Rows about the connection stay. */
import { $, copy, make, number, press, save, set } from "./dom.js";
import { parseJson, tree } from "./json.js";
import { toJson, toRecording, toStream } from "./recording.js";
import { language, text } from "./text.js";

/** What is kept. A few more are let in first, so that dropping costs little. */
const MOST_EVENTS = 10000, MOST_CHARACTERS = 16e6, MOST_NOTES = 400, SLACK = 500;
/** How much of the data a row shows, and the detail below the rows. */
const ROW_CHARACTERS = 300, DETAIL_CHARACTERS = 100000;
/** The widest columns, in characters. Ids of this server have 15 and more. */
const MOST_TYPE = 22, MOST_ID = 24;

/**
 * A row of the kind `event` has type, id and data. The other kinds are about the connection, and have a note: open, lost,
 * back, gap, end, done, gaveUp, letGo. `at` is in milliseconds since 1970; `version` counts changes.
 * @typedef {{ at: number, kind: string, type?: string, id?: string, data?: string, note?: string, version: number }} Row
 */

const time = new Intl.DateTimeFormat(language, {
  hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23",
});
const encoder = new TextEncoder();

const spacing = (ms) => ms < 1000 ? `+${Math.round(ms)} ms` : ms < 100000 ? `+${(ms / 1000).toFixed(1)} s` : `+${Math.round(ms / 60000)} min`;

const size = (bytes) => bytes < 10000 ? `${number(bytes)} B` : bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;

export class Log {
  constructor() {
    this.box = $("log");
    this.box.role = "listbox";
    this.space = $("log-space");
    this.drawn = [];
    this.types = new Set();
    this.clear();
    this.box.onscroll = () => this.drawSoon();
    new ResizeObserver(() => this.drawSoon()).observe(this.box);
    this.box.onkeydown = (event) => this.move(event);
    $("log-type").onchange = $("log-find").oninput = $("log-only").onchange = () => this.filter();
    $("log-find").onkeydown = (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      this.find(event.shiftKey ? -1 : 1);
    };
    press($("log-pause"), () => this.pause(!this.isPaused));
    press($("log-clear"), () => this.clear());
    const isJson = () => $("log-format").value === "json";
    press($("log-copy"), () => copy((isJson() ? toJson : toStream)(this.events())));
    press($("log-save"), () => isJson() ? save("events.json", toJson(this.events())) : save("recording.sse", toRecording(this.events())));
  }

  clear() {
    this.rows = [];
    this.count = this.characters = this.dropped = 0;
    for (const column of ["type", "id"]) this.box.parentElement.style.removeProperty(`--${column}`);
    this.selected = null;
    this.lastAt = 0;
    this.types.clear();
    this.widths = { type: 0, id: 0 };
    $("log-type").replaceChildren(make("option", { value: "", textContent: text("log.allTypes") }));
    this.pause(false);
    this.showDetail();
  }

  events() {
    return this.shown.filter((row) => row.kind === "event");
  }

  add(row) {
    row.at ??= Date.now();
    row.gap = this.lastAt ? row.at - this.lastAt : 0;
    row.version = 0;
    this.lastAt = row.at;
    this.rows.push(row);
    if (row.kind === "event") {
      this.count++;
      this.characters += row.data.length;
      this.widen("type", row.type.length, MOST_TYPE);
      this.widen("id", row.id.length, MOST_ID);
      if (!this.types.has(row.type) && this.types.size < 100) {
        this.types.add(row.type);
        $("log-type").append(make("option", { value: row.type, textContent: row.type }));
      }
    }
    if (!this.isPaused && this.shown !== this.rows && this.matches(row)) this.shown.push(row);
    if (this.count > MOST_EVENTS + SLACK || this.characters > MOST_CHARACTERS || this.rows.length > this.count + MOST_NOTES + SLACK) this.trim();
    this.drawSoon();
    return row;
  }

  widen(column, length, most) {
    if (length <= this.widths[column]) return;
    this.widths[column] = length;
    this.box.parentElement.style.setProperty(`--${column}`, `${Math.min(length, most)}ch`);
  }

  /** Changes a row. @param {Row} row @param {Partial<Row>} changes */
  update(row, changes) {
    Object.assign(row, changes);
    row.version++;
    if (row === this.selected) this.showDetail();
    this.drawSoon();
  }

  /** Drops the oldest events. */
  trim() {
    const atTop = this.shown[this.first()], before = this.shown.length;
    const room = this.characters > MOST_CHARACTERS ? MOST_CHARACTERS * 0.9 : MOST_CHARACTERS;
    let notes = this.rows.length - this.count;
    this.rows = this.rows.filter((row) => {
      if (row.kind !== "event") return notes-- <= MOST_NOTES;
      if (this.count === 1 || this.count <= MOST_EVENTS && this.characters <= room) return true;
      this.count--;
      this.dropped++;
      this.characters -= row.data.length;
      return false;
    });
    if (this.isPaused) return;
    this.choose();
    // A person that has scrolled up goes on seeing the same rows.
    if (!this.follows && before > 0) this.box.scrollTop = Math.max(0, this.shown.indexOf(atTop)) * this.rowHeight();
  }

  matches(row) {
    const { type, words, isOnly } = this.wanted;
    if (row.kind !== "event") return !type;
    return (!type || row.type === type) && (!isOnly || !words || this.has(row, words));
  }

  has(row, words) {
    return `${row.type ?? ""}\n${row.id ?? ""}\n${row.data ?? row.note}`.toLowerCase().includes(words);
  }

  /** Which rows are shown. Without a filter these are all rows. */
  choose() {
    const words = $("log-find").value.toLowerCase();
    this.wanted = { type: $("log-type").value, words, isOnly: $("log-only").checked };
    const isAll = !this.wanted.type && (!words || !this.wanted.isOnly);
    this.shown = isAll && !this.isPaused ? this.rows : this.rows.filter((row) => this.matches(row));
  }

  filter() {
    this.choose();
    this.tall = undefined;
    this.follows = true;
    this.drawSoon();
  }

  /** Selects the next row with the text, or the one before. */
  find(by) {
    const { words } = this.wanted, { shown } = this, start = shown.indexOf(this.selected);
    if (!words) return;
    for (let step = 1; step <= shown.length; step++) {
      const at = (start + by * step + 2 * shown.length + (start < 0 && by < 0 ? 1 : 0)) % shown.length;
      if (this.has(shown[at], words)) return this.select(at);
    }
  }

  pause(isPaused) {
    this.isPaused = isPaused;
    this.heldFrom = this.count + this.dropped;
    $("log-pause").ariaPressed = isPaused;
    this.filter();
  }

  rowHeight() {
    return parseFloat(getComputedStyle(this.box).getPropertyValue("--row"));
  }

  first() {
    return Math.floor(this.box.scrollTop / this.rowHeight());
  }

  drawSoon() {
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.isDue = false;
    const { box, shown } = this, row = this.rowHeight(), tall = shown.length * row;
    // The box stays scrolled to its end, unless a person has scrolled up.
    if (this.tall !== undefined) this.follows = this.tall - box.scrollTop - box.clientHeight < 2 * row;
    if (this.tall !== tall) this.space.style.height = `${tall}px`;
    if (this.follows && this.tall !== tall) box.scrollTop = tall;
    this.tall = tall;
    const first = Math.min(this.first(), Math.max(0, shown.length - 1));
    const count = Math.min(shown.length - first, Math.ceil(box.clientHeight / row) + 2);
    while (this.drawn.length < count) this.drawn.push(this.space.appendChild(this.makeRow()));
    this.drawn.forEach((element, at) => {
      element.hidden = at >= count;
      if (at < count) this.drawRow(element, shown[first + at], first + at, row);
    });
    const isSeen = shown.indexOf(this.selected, first) - first;
    if (this.selected && isSeen >= 0 && isSeen < count) box.setAttribute("aria-activedescendant", `row-${isSeen}`);
    else box.removeAttribute("aria-activedescendant");
    $("log-empty").hidden = shown.length > 0;
    const held = this.count + this.dropped - this.heldFrom;
    set($("log-pause"), this.isPaused ? text("log.resume", { count: number(held) }) : text("log.pause"));
    const filtered = shown === this.rows ? "" : text("log.shown", { count: number(shown.length) });
    const dropped = this.dropped ? text("log.dropped", { count: number(this.dropped) }) : "";
    set($("log-count"), [text("log.count", { count: number(this.count) }), filtered, dropped].filter(Boolean).join(" "));
  }

  makeRow() {
    const cells = ["time", "after", "type", "id", "size", "data"].map((className) => make("span", { className }));
    const element = make("div", { role: "option", id: `row-${this.drawn.length}` }, ...cells);
    element.onclick = () => this.select(element.at);
    return element;
  }

  drawRow(element, row, at, height) {
    const isHit = this.wanted.words !== "" && this.has(row, this.wanted.words);
    const state = `${row.kind}${isHit ? " hit" : ""}`;
    if (element.at !== at) element.style.transform = `translateY(${at * height}px)`;
    if (element.className !== state) element.className = state;
    if (element.at !== at || element.ariaSetSize !== `${this.shown.length}`) {
      element.ariaPosInSet = at + 1;
      element.ariaSetSize = this.shown.length;
    }
    element.at = at;
    element.ariaSelected = row === this.selected;
    if (element.row === row && element.version === row.version) return;
    element.row = row;
    element.version = row.version;
    const isEvent = row.kind === "event", content = isEvent ? row.data : row.note;
    const cells = [time.format(row.at), spacing(row.gap), isEvent ? row.type : "", isEvent ? row.id : "",
      isEvent ? size(encoder.encode(row.data).length) : "", content.slice(0, ROW_CHARACTERS).replace(/\n/g, " ↵ ")];
    cells.forEach((cell, index) => set(element.children[index], cell));
  }

  move(event) {
    const page = Math.max(1, Math.floor(this.box.clientHeight / this.rowHeight()) - 1), last = this.shown.length - 1;
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || last < 0) return;
    event.preventDefault();
    const now = this.shown.indexOf(this.selected), from = now < 0 ? (steps[event.key] > 0 ? this.first() - 1 : last + 1) : now;
    this.select(Math.min(Math.max(from + steps[event.key], 0), last));
  }

  select(at) {
    this.selected = this.shown[at];
    const row = this.rowHeight(), top = at * row, { box } = this;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + row > box.scrollTop + box.clientHeight) box.scrollTop = top + row - box.clientHeight;
    this.showDetail();
    this.drawSoon();
  }

  showDetail() {
    const row = this.selected, detail = $("log-detail");
    detail.hidden = !row;
    if (!row) return;
    const content = row.kind === "event" ? row.data : row.note, value = parseJson(content);
    $("detail-title").textContent = row.kind === "event"
      ? text("log.detail", { type: row.type, id: row.id || text("none"), time: time.format(row.at), size: size(encoder.encode(content).length) })
      : time.format(row.at);
    const cut = content.length > DETAIL_CHARACTERS ? `\n… ${text("wire.characters", { count: number(content.length) })}` : "";
    $("detail-data").replaceChildren(value === undefined ? make("pre", {}, content.slice(0, DETAIL_CHARACTERS) + cut) : tree(value));
    $("detail-copy").onclick = () => copy(content);
  }
}
