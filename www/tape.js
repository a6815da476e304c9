/** A list of the last blocks: on the left the lines of bytes, on the right what became of them. */
import { make, number, setWithIds } from "./dom.js";
import { text } from "./text.js";

/** So many bytes of a line are shown. */
export const LINE_BYTES = 240;

const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

export const decode = (bytes) => decoder.decode(Uint8Array.from(bytes));

/** Replaces characters that are invisible. */
const visible = (content) => content.replace(/[\0-\x1f\ufeff]/g, (c) =>
  c === "\ufeff" ? "[BOM]" : `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`);

/**
 * `more` lines are not shown; it came in `writes` pieces. `note` says what became of it, and `ignored` why a line is struck
 * out. The kinds are event (with type and id), open, failed and closed.
 * @typedef {{ lines?: { bytes: number[], length: number, end: string, kind?: string }[], more?: number, writes?: number,
 *   isHead?: boolean, kind?: string, note?: string, type?: string, id?: string, ignored?: string }} Block
 */

export class Tape {
  constructor(list, most) {
    Object.assign(this, { list, most, follows: true });
    // The list stays scrolled to its end, unless a person scrolls up.
    const box = list.parentElement;
    box.onscroll = () => { this.follows = box.scrollHeight - box.scrollTop - box.clientHeight < 40; };
    this.clear();
  }

  clear() {
    this.list.replaceChildren();
    this.added = [];
    this.changed = new Set();
    this.skipped = 0;
  }

  /** @param {Block} block */
  add(block) {
    block.lines ??= [];
    this.added.push(block);
    if (this.added.length > 2 * this.most) {
      this.skipped += this.most;
      this.added.splice(0, this.most);
    }
    this.touch(block);
  }

  /** Draws a block with the next frame. When many come, it draws less often. */
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
    const added = this.added.splice(0), most = this.isFast ? 20 : this.most;
    this.isFast = added.length > 12;
    this.list.classList.toggle("fast", this.isFast);
    this.skipped += added.splice(0, added.length - most).length;
    for (const block of added) {
      block.element = make("li", {}, make("pre"), make("div"));
      drawBlock(block);
    }
    for (const block of this.changed) if (block.element) drawBlock(block);
    this.changed.clear();
    if (this.skipped > 0) added.unshift({ element: make("li", {}, make("small", { textContent: text("wire.skipped", { count: number(this.skipped) }) })) });
    this.skipped = 0;
    this.list.append(...added.map((block) => block.element));
    while (this.list.children.length > this.most) this.list.firstChild.remove();
    if (this.follows) box.scrollTop = box.scrollHeight;
  }
}

function drawBlock(block) {
  const [sent, made] = block.element.children;
  const isInPieces = !block.isHead && block.lines.length > 0 && block.writes > 1;
  sent.replaceChildren(...block.lines.map((line) => {
    const cut = line.length > LINE_BYTES ? `… ${text("wire.bytes", { count: number(line.length) })}` : "";
    const element = make("span", { className: line.kind ?? "head" }, visible(decode(line.bytes)) + cut);
    element.dataset.end = line.end;
    return element;
  }));
  if (block.more) sent.append(make("small", {}, text("wire.more", { count: number(block.more) })));
  if (isInPieces) sent.append(make("small", {}, text("wire.pieces", { count: number(block.writes) })));
  made.replaceChildren();
  block.element.className = block.kind ?? "";
  if (block.kind === "event") {
    const id = make("small", {});
    setWithIds(id, block.id === "" ? block.type : `${block.type}, id ${block.id}`);
    made.append(make("span", { className: "text" }, block.note), " ", id);
    if (block.ignored) made.append(make("br"), make("small", {}, block.ignored));
  } else if (block.note) {
    made.append(block.note);
  }
}
