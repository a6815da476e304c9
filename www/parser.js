/** Bytes to events: the standard's algorithm (HTML, 9.2.6). */

/** The most characters of a line and of an event's data: a stream must not fill the memory. */
const LIMIT = 16 * 1024 * 1024;

/** @typedef {{ type: string, data: string, lastEventId: string }} Message */

export class Parser {
  /** @param {{ event: (message: Message) => void, comment?: (content: string) => void, retry?: (ms: number) => void }} heard */
  constructor(heard, lastEventId = "") {
    this.heard = heard;
    // "Streams must be decoded using the UTF-8 decode algorithm", which strips one byte order mark.
    this.decoder = new TextDecoder();
    this.lastEventId = this.id = lastEventId;
    this.line = this.data = this.type = "";
    this.isAfterCr = false;
  }

  /** Takes the next bytes, in pieces of any size. @param {BufferSource} bytes */
  feed(bytes) {
    let text = this.decoder.decode(bytes, { stream: true });
    if (text === "") return;
    if (this.isAfterCr && text.startsWith("\n")) text = text.slice(1);
    this.isAfterCr = text.endsWith("\r");
    const lines = text.split(/\r\n|\n|\r/);
    lines[0] = this.line + lines[0];
    this.line = lines.pop();
    for (const line of lines) this.interpret(line);
    if (Math.max(this.line.length, this.data.length) > LIMIT) throw new RangeError("an event is too large");
  }

  interpret(line) {
    if (line === "") return this.dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) return this.heard.comment?.(line.slice(1));
    const name = colon < 0 ? line : line.slice(0, colon);
    // "If value starts with a U+0020 SPACE character, remove it from value."
    const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (name === "event") this.type = value;
    else if (name === "data") this.data += `${value}\n`;
    else if (name === "id" && !value.includes("\0")) this.id = value;
    else if (name === "retry" && /^[0-9]+$/.test(value)) this.heard.retry?.(Number(value));
  }

  dispatch() {
    const { data, type } = this;
    this.lastEventId = this.id;
    this.data = this.type = "";
    if (data === "") return;
    this.heard.event({ type: type || "message", data: data.slice(0, -1), lastEventId: this.lastEventId });
  }
}
