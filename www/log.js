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
const MOST_WIDE = { type: 22, id: 24 };

/**
 * A row of the kind `event` has type, id and data. The other kinds are about the connection, and have a note: open, lost,
 * back, gap, end, done, gaveUp, letGo. `at` is in milliseconds since 1970, and `gap` since the row before.
 * @typedef {{ at: number, gap: number, kind: string, type?: string, id?: string, data?: string, size?: string, note?: string }} Row
 */

const time = new Intl.DateTimeFormat(language, {
  hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23",
});
const encoder = new TextEncoder();

const spacing = (ms) => ms < 1000 ? `+${Math.round(ms)} ms` : ms < 100000 ? `+${(ms / 1000).toFixed(1)} s` : `+${Math.round(ms / 60000)} min`;

const size = (bytes) => bytes < 10000 ? `${number(bytes)} B` : bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;

const contentOf = (row) => row.data ?? row.note;

export class Log {
  constructor() {
    this.box = $("log");
    this.box.role = "listbox";
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
    this.count = this.characters = this.dropped = this.lastAt = 0;
    this.selected = null;
    this.types.clear();
    this.widths = { type: 0, id: 0 };
    this.box.parentElement.removeAttribute("style");
    $("log-type").replaceChildren(make("option", { value: "" }, text("log.allTypes")));
    this.pause(false);
    this.showDetail();
  }

  events() {
    return this.shown.filter((row) => row.kind === "event");
  }

  /** @param {Partial<Row>} row @returns {Row} */
  add(row) {
    row.at ??= Date.now();
    row.gap = this.lastAt ? row.at - this.lastAt : 0;
    this.lastAt = row.at;
    this.rows.push(row);
    if (row.kind === "event") {
      row.size = size(encoder.encode(row.data).length);
      this.count++;
      this.characters += row.data.length;
      this.widen("type", row);
      this.widen("id", row);
      if (!this.types.has(row.type) && this.types.size < 100) {
        this.types.add(row.type);
        $("log-type").append(make("option", { value: row.type }, row.type));
      }
    }
    if (!this.isPaused && this.shown !== this.rows && this.matches(row)) this.shown.push(row);
    if (this.count > MOST_EVENTS + SLACK || this.characters > MOST_CHARACTERS || this.rows.length > this.count + MOST_NOTES + SLACK) this.trim();
    this.drawSoon();
    return row;
  }

  widen(column, row) {
    const width = Math.min(row[column].length, MOST_WIDE[column]);
    if (width <= this.widths[column]) return;
    this.widths[column] = width;
    this.box.parentElement.style.setProperty(`--${column}`, `${width}ch`);
  }

  /** Changes a row. @param {Row} row @param {Partial<Row>} changes */
  update(row, changes) {
    Object.assign(row, changes);
    if (row === this.selected) this.showDetail();
    this.drawSoon();
  }

  /** Drops the oldest events. */
  trim() {
    const atTop = this.shown[this.first()];
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
    if (!this.follows && atTop) this.box.scrollTop = Math.max(0, this.shown.indexOf(atTop)) * this.rowHeight();
  }

  matches(row) {
    const { type, words, isOnly } = this.wanted;
    if (row.kind !== "event") return !type;
    return (!type || row.type === type) && (!isOnly || !words || this.has(row));
  }

  has(row) {
    return [row.type, row.id, contentOf(row)].join("\n").toLowerCase().includes(this.wanted.words);
  }

  /** Which rows are shown. Without a filter these are all rows. */
  choose() {
    this.wanted = { type: $("log-type").value, words: $("log-find").value.toLowerCase(), isOnly: $("log-only").checked };
    const isAll = !this.wanted.type && (!this.wanted.words || !this.wanted.isOnly);
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
    const { shown } = this, start = shown.indexOf(this.selected);
    if (!this.wanted.words) return;
    for (let step = 1; step <= shown.length; step++) {
      const at = (start + by * step + 2 * shown.length + (start < 0 && by < 0 ? 1 : 0)) % shown.length;
      if (this.has(shown[at])) return this.select(at);
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
    if (this.tall !== tall) $("log-space").style.height = `${tall}px`;
    if (this.follows && this.tall !== tall) box.scrollTop = tall;
    this.tall = tall;
    const first = Math.min(this.first(), Math.max(0, shown.length - 1));
    const count = Math.min(shown.length - first, Math.ceil(box.clientHeight / row) + 2);
    while (this.drawn.length < count) this.drawn.push(this.makeRow());
    box.removeAttribute("aria-activedescendant");
    this.drawn.forEach((element, at) => {
      element.hidden = at >= count;
      if (at < count) this.drawRow(element, shown[first + at], first + at, row);
    });
    $("log-empty").hidden = shown.length > 0;
    const held = number(this.count + this.dropped - this.heldFrom);
    set($("log-pause"), this.isPaused ? text("log.resume", { count: held }) : text("log.pause"));
    set($("log-count"), text("log.count", { count: number(this.count) })
      + (shown === this.rows ? "" : ` ${text("log.shown", { count: number(shown.length) })}`)
      + (this.dropped ? ` ${text("log.dropped", { count: number(this.dropped) })}` : ""));
  }

  makeRow() {
    const cells = ["time", "after", "type", "id", "size", "data"].map((className) => make("span", { className }));
    const element = make("div", { role: "option", id: `row-${this.drawn.length}` }, ...cells);
    element.onclick = () => this.select(element.at);
    $("log-space").append(element);
    return element;
  }

  drawRow(element, row, at, height) {
    element.at = at;
    element.className = row.kind;
    element.classList.toggle("hit", this.wanted.words !== "" && this.has(row));
    element.style.transform = `translateY(${at * height}px)`;
    element.ariaPosInSet = at + 1;
    element.ariaSetSize = this.shown.length;
    element.ariaSelected = row === this.selected;
    if (row === this.selected) this.box.setAttribute("aria-activedescendant", element.id);
    const { type = "", id = "", size = "" } = row, data = contentOf(row).slice(0, ROW_CHARACTERS).replaceAll("\n", " ↵ ");
    [time.format(row.at), spacing(row.gap), type, id, size, data].forEach((cell, index) => set(element.children[index], cell));
  }

  move(event) {
    const page = Math.max(1, Math.floor(this.box.clientHeight / this.rowHeight()) - 1), last = this.shown.length - 1;
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
    if (!step || last < 0) return;
    event.preventDefault();
    const now = this.shown.indexOf(this.selected), from = now >= 0 ? now : step > 0 ? this.first() - 1 : last + 1;
    this.select(Math.min(Math.max(from + step, 0), last));
  }

  select(at) {
    this.selected = this.shown[at];
    const { box } = this, row = this.rowHeight(), top = at * row;
    box.scrollTop = Math.min(Math.max(box.scrollTop, top + row - box.clientHeight), top);
    this.showDetail();
    this.drawSoon();
  }

  showDetail() {
    const row = this.selected;
    $("log-detail").hidden = !row;
    if (!row) return;
    const content = contentOf(row), value = parseJson(content), when = time.format(row.at);
    set($("detail-title"), row.kind === "event" ? `${row.type} · ID ${row.id || text("none")} · ${when} · ${row.size}` : when);
    const cut = content.length > DETAIL_CHARACTERS ? `\n… ${text("wire.characters", { count: number(content.length) })}` : "";
    $("detail-data").replaceChildren(value === undefined ? make("pre", {}, content.slice(0, DETAIL_CHARACTERS) + cut) : tree(value));
    $("detail-copy").onclick = () => copy(content);
  }
}
