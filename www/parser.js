/** Bytes to events: the standard's algorithm (HTML, 9.2.6). */

/** The most characters of a line and of an event's data: a stream must not fill the memory. */
const LIMIT = 16 * 1024 * 1024;

/**
 * @typedef {{ type: string, data: string, lastEventId: string }} Message
 * @typedef {{ content: string, raw: string, end: string, name: string, value: string }} Line `raw` has the byte order mark,
 *   too; the name of a comment is empty
 */

export class Parser {
  /**
   * @param {{ event?: (message: Message) => void, comment?: () => void, retry?: (ms: number) => void,
   *   line?: (line: Line) => void }} heard is told of each line before what it means
   */
  constructor(heard, lastEventId = "") {
    this.heard = heard;
    this.decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    this.lastEventId = this.id = lastEventId;
    this.line = this.data = this.type = "";
    this.isStart = true;
    this.isAfterCr = false;
  }

  /** Takes the next bytes, in pieces of any size. @param {BufferSource} bytes */
  feed(bytes) {
    let text = this.decoder.decode(bytes, { stream: true });
    if (text === "") return;
    if (this.isAfterCr && text.startsWith("\n")) text = text.slice(1);
    this.isAfterCr = text.endsWith("\r");
    for (const [, part, end] of text.matchAll(/([^\r\n]*)(\r\n|\n|\r|$)/g)) {
      this.line += part;
      if (end) this.interpret(this.line, end);
    }
    if (Math.max(this.line.length, this.data.length) > LIMIT) throw new RangeError("an event is too large");
  }

  interpret(raw, end) {
    // "The UTF-8 decode algorithm strips one leading UTF-8 Byte Order Mark (BOM), if any."
    const content = this.isStart && raw.startsWith("\ufeff") ? raw.slice(1) : raw;
    // "If value starts with a U+0020 SPACE character, remove it from value."
    const [, name, value] = /^([^:]*)(?:: ?)?([^]*)$/.exec(content);
    this.line = "";
    this.isStart = false;
    this.heard.line?.({ content, raw, end, name, value });
    if (content === "") this.dispatch();
    else if (name === "") this.heard.comment?.();
    else if (name === "event") this.type = value;
    else if (name === "data") this.data += `${value}\n`;
    else if (name === "id" && !value.includes("\0")) this.id = value;
    else if (name === "retry" && /^[0-9]+$/.test(value)) this.heard.retry?.(Number(value));
  }

  dispatch() {
    const { data, type } = this;
    this.lastEventId = this.id;
    this.data = this.type = "";
    if (data !== "") this.heard.event?.({ type: type || "message", data: data.slice(0, -1), lastEventId: this.id });
  }
}
