/** What the check asks a server, and what it sees. */
import { Parser } from "./parser.js";
import { fieldsOfRequest, isForbidden } from "./reader.js";

/** No more of a fast stream is watched. */
const MOST_BYTES = 1024 * 1024;
/** So many of the last events are asked for again. */
const RESUMED_EVENTS = 3;
/** Reads with a shorter pause between them are one burst. */
const PAUSE_MS = 50;

/** A request, and what came of it. Times are milliseconds since the request. */
class Exchange {
  text = "";
  isUtf8 = true;
  /** When each read came, and where it ends in the text and in the bytes. */
  reads = [];
  /** @type {import("./parser.js").Line[]} */
  lines = [];
  /** The events, each with an id of its own or "", and the blocks that are none. */
  events = [];
  empty = [];
  /** The lines behind the last blank one, what is there of another, and since when. */
  block = [];
  rest = "";
  pendingAt = undefined;
  response = null;
  /** "" if it was closed from here; "clean", or "broken". */
  end = "";
  /** Why there is no response: "cors", "unreachable" or "late". */
  missing = "";

  /**
   * Watches a response for a time, or until it has so many events with an id.
   * @param {{ url: string, fields: [string, string][], lastId?: string, ms: number, enough?: number }} order
   */
  static async run({ url, fields, lastId, ms, enough = Infinity }) {
    const seen = new Exchange(), abort = new AbortController(), began = performance.now();
    const now = () => performance.now() - began;
    const timer = setTimeout(() => abort.abort(), ms);
    try {
      seen.response = await fetch(url, { headers: fieldsOfRequest(fields, lastId), signal: abort.signal, cache: "no-store" });
      seen.headAt = now();
      await seen.read(now, enough);
    } catch {
      if (seen.response) seen.end = abort.signal.aborted ? "" : "broken";
      else seen.missing = abort.signal.aborted ? "late" : await isForbidden(url) ? "cors" : "unreachable";
    }
    seen.endedAt = now();
    clearTimeout(timer);
    abort.abort();
    return seen;
  }

  async read(now, enough) {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true }), strict = new TextDecoder("utf-8", { fatal: true });
    const parser = new Parser({ line: (line) => this.take(line, now()) });
    const body = this.response.body?.getReader();
    for (let bytes = 0; bytes < MOST_BYTES;) {
      const { done, value } = await body?.read() ?? { done: true };
      if (done) {
        this.end = "clean";
        return;
      }
      const at = now();
      this.text += decoder.decode(value, { stream: true });
      try {
        // A character may be whole only after what was watched.
        if (this.isUtf8) strict.decode(value, { stream: true });
      } catch {
        this.isUtf8 = false;
      }
      bytes += value.length;
      this.reads.push({ at, end: this.text.length, bytes });
      parser.feed(value);
      this.rest = parser.line;
      if (this.rest || this.block.length) this.pendingAt ??= at;
      if (this.events.filter(({ id }) => id).length >= enough) return;
    }
  }

  take(line, at) {
    this.lines.push(line);
    if (line.content) return this.block.push(line);
    const values = (wanted) => this.block.filter(({ name }) => name === wanted).map(({ value }) => value), data = values("data");
    const id = values("id").findLast((value) => !value.includes("\0")) ?? "";
    if (data.length) this.events.push({ id, kind: values("event").at(-1) || "message", data: data.join("\n"), at });
    else this.empty.push(this.block.map(({ content }) => content).join("\n"));
    this.block = [];
    this.pendingAt = undefined;
  }

  /** Whether data behind the last blank line waits. */
  get hasPending() {
    return [...this.block.map(({ content }) => content), this.rest].some((line) => line.startsWith("data"));
  }

  get isOk() {
    return this.response?.status === 200;
  }

  get mediaType() {
    return this.field("Content-Type").split(";")[0].trim().toLowerCase();
  }

  /** Whether EventSource would take it for a stream, or would but for its media type. */
  get isStream() {
    return this.isOk && (this.mediaType === "text/event-stream" || this.events.length > 0);
  }

  /** What a server says of a refusal in plain text: the first line, cut at 300 characters. */
  get sentence() {
    const line = this.field("Content-Type").startsWith("text/plain") ? this.text.split("\n")[0].trim() : "";
    return line && `: ${line.slice(0, 300)}`;
  }

  field(name) {
    return this.response?.headers.get(name) ?? "";
  }

  /** Bytes that arrived without a pause. */
  get bursts() {
    const bursts = [];
    let start = 0;
    for (const { at, end, bytes } of this.reads) {
      const last = bursts.at(-1);
      if (last && at < last.until + PAUSE_MS) Object.assign(last, { until: at, end, size: bytes - last.start });
      else bursts.push({ from: at, until: at, end, start, size: bytes - start });
      start = bytes;
    }
    return bursts;
  }
}

/** The stream as EventSource asks for it, then with the id of an event, and again after a clean end. */
export async function gather(url, fields, ms) {
  const first = await Exchange.run({ url, fields, ms });
  const ids = first.events.map(({ id }) => id).filter(Boolean);
  let resumed = null, again = null;
  if (ids.length) {
    const events = Math.min(RESUMED_EVENTS, ids.length - 1), id = ids.at(-1 - events);
    // Where no event must come again, it is enough to see that none does.
    const time = events ? ms : Math.min(ms, 10 * PAUSE_MS);
    resumed = { id, exchange: await Exchange.run({ url, fields, lastId: id, ms: time, enough: Math.max(events, 1) }) };
  }
  if (first.end === "clean") again = await Exchange.run({ url, fields, lastId: ids.at(-1), ms, enough: 1 });
  return { first, resumed, again, isForeign: new URL(url).origin !== location.origin };
}
