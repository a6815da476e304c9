/** What the check asks a server, and what it sees. */
import { fieldsOfRequest, isForbidden } from "./reader.js";

/** No more of a fast stream is watched. */
const MOST_BYTES = 1024 * 1024;
/** So many of the last events are asked for again. */
const RESUMED_EVENTS = 3;
/** Reads with a shorter pause between them are one burst. */
const PAUSE_MS = 50;
const BOM = "\ufeff";

/** A request, and what came of it. Times are milliseconds since the request. */
class Exchange {
  text = "";
  bytes = [];
  /** When each read came, and where it ends in the text and in the bytes. */
  reads = [];
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
    seen.events = seen.blocks().events;
    return seen;
  }

  async read(now, enough) {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    const body = this.response.body?.getReader();
    let length = 0;
    while (length < MOST_BYTES) {
      const { done, value } = await body?.read() ?? { done: true };
      if (done) {
        this.end = "clean";
        return;
      }
      this.text += decoder.decode(value, { stream: true });
      this.bytes.push(value);
      length += value.length;
      this.reads.push({ at: now(), end: this.text.length, bytes: length });
      if (enough < Infinity && this.blocks().events.filter(({ id }) => id).length >= enough) return;
    }
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

  /** The lines, each with its end. A byte order mark at the start belongs to none. */
  get lines() {
    const text = this.text.startsWith(BOM) ? this.text.slice(1) : this.text;
    return [...text.matchAll(/([^\r\n]*)(\r\n|\n|\r|$)/g)].filter(([whole]) => whole).map(([, line, end]) => ({ line, end }));
  }

  /** The fields, and with an empty name the comments. */
  get fields() {
    return this.lines.filter(({ line }) => line).map(({ line }) => fieldOf(line));
  }

  /** The events, the blocks that are none, and whether data behind the last blank line waits, and since when. */
  blocks() {
    let lines = [], at = this.text.startsWith(BOM) ? 1 : 0, start = at;
    const events = [], empty = [];
    for (const { line, end } of this.lines) {
      at += line.length + end.length;
      if (line) {
        lines.push(line);
        continue;
      }
      const event = eventOf(lines);
      if (event) events.push({ ...event, at: this.arrival(at) });
      else empty.push(lines.join("\n"));
      lines = [];
      start = at;
    }
    return { events, empty, hasPending: lines.some((line) => line.startsWith("data")), pendingAt: this.arrival(start + 1) };
  }

  arrival(end) {
    return this.reads.find((read) => read.end >= end)?.at ?? this.endedAt;
  }
}

function fieldOf(line) {
  const [, name, value] = /^([^:]*):? ?(.*)$/s.exec(line);
  return [name, value];
}

function eventOf(lines) {
  const fields = lines.map(fieldOf);
  const last = (name) => fields.findLast(([found, value]) => found === name && !(name === "id" && value.includes("\0")))?.[1] ?? "";
  const data = fields.filter(([name]) => name === "data").map(([, value]) => value);
  return data.length ? { id: last("id"), kind: last("event") || "message", data: data.join("\n") } : null;
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
