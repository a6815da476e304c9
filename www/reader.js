/** Reads one stream, with EventSource or with fetch and the standard's parser. Both come back by the same rules. */
import { Parser } from "./parser.js";
import { countConnections, share } from "./tabs.js";
import { text } from "./text.js";

/** The reconnection time before a stream names one, and the longest wait for a server that cannot be reached. */
const RETRY_MS = 3000, MOST_MS = 30000;
/** After so long without an answer, the reader looks for a reason. */
const PATIENCE_MS = 1500;
/** Browsers open six connections to a host over HTTP/1.1. */
const MOST_CONNECTIONS = 6;

/**
 * What is read and how. Fetch has a method, fields and content; EventSource has the types that it listens for besides
 * `message`. `endsAt` is the type of an event behind which nothing comes; a reader of `once` does not come back.
 * @typedef {{ url: string, as: "eventsource" | "fetch", method?: string, fields?: [string, string][], content?: string,
 *   types?: string[], begun?: EventSource, lastId?: string, endsAt?: string, once?: boolean }} Order
 */

/**
 * Where a stream stands. There are four kinds of closed: `idle` was never opened, `done` has everything, `gaveUp` found
 * out why there is nothing to come back to, and `letGo` was closed on this side. `why` is a sentence; for `waiting` it is
 * ended, broken or unreachable. `since` is when the stream was lost and `until` when it tries again, by performance.now().
 * `isFull`: all connections of the browser are in use.
 * @typedef {{ name: keyof typeof READY_STATES, why?: string, tries?: number, since?: number, until?: number,
 *   isFull?: boolean }} State
 */

/** The readyState of EventSource (HTML, 9.2.2) for each state. */
export const READY_STATES = { connecting: 0, waiting: 0, open: 1, idle: 2, done: 2, gaveUp: 2, letGo: 2 };

/** An address with another parameter. */
export const withParameter = (url, name, value) =>
  value ? `${url}${url.includes("?") ? "&" : "?"}${name}=${encodeURIComponent(value)}` : url;

const isHere = (url) => new URL(url).origin === location.origin;

/** The fields of a request for a stream. @param {[string, string][]} fields @param {string} [lastId] */
export function fieldsOfRequest(fields, lastId) {
  const headers = new Headers({ Accept: "text/event-stream" });
  for (const [name, value] of fields) headers.set(name, value);
  // A field has bytes. EventSource sends those of UTF-8, and so does this.
  if (lastId) headers.set("Last-Event-ID", String.fromCharCode(...new TextEncoder().encode(lastId)));
  return headers;
}

/** Whether a server answers, but does not let pages of this origin read. @param {string} url */
export async function isForbidden(url) {
  if (isHere(url)) return false;
  const abort = new AbortController(), init = { mode: "no-cors", signal: abort.signal, cache: "no-store" };
  const answers = await fetch(url, init).then(() => true, () => false);
  abort.abort();
  return answers;
}

export class Reader {
  state = { name: "idle" };
  lastId = "";

  /**
   * @param {object} heard what is called: `changed(state)`, `opened(response)`, `event(message)`; with fetch `comment()` and
   *   `bytes(piece)`; and `takeUp()`, to open the stream again that was let go while the page was hidden.
   */
  constructor(heard) {
    this.heard = heard;
    share(this);
  }

  get readyState() {
    return READY_STATES[this.state.name];
  }

  get isActive() {
    return this.readyState < 2;
  }

  get connections() {
    const has = !this.isLocal && ["open", "connecting"].includes(this.state.name);
    return has ? 1 + (this.heard.wires?.() ?? 0) : 0;
  }

  open(order) {
    this.end();
    this.order = { ...order, url: new URL(order.url, document.baseURI).href };
    this.lastId = order.lastId ?? "";
    this.retryMs = RETRY_MS;
    this.lost = null;
    this.connect();
  }

  /** A recording plays in this page: the reader has a state, but no connection. */
  pretend(url) {
    this.end();
    this.order = { url, as: "fetch" };
    this.lastId = "";
    this.isLocal = true;
    this.change({ name: "open" });
  }

  close(name = "letGo", why = text("state.byYou")) {
    this.end();
    this.change({ name, why });
  }

  /** Another page needs the connections, and this one is hidden. */
  letGo() {
    if (!this.isActive || this.isLocal) return;
    this.close("letGo", text("state.hidden"));
    this.isHidden = true;
  }

  takeUp() {
    if (!this.isHidden) return;
    this.isHidden = false;
    this.heard.takeUp();
  }

  end() {
    this.run = {};
    this.isHidden = this.isLocal = false;
    clearTimeout(this.timer);
    this.source?.close();
    this.abort?.abort();
    this.source = this.abort = null;
  }

  change(state) {
    this.state = state;
    this.heard.changed(state);
  }

  connect() {
    const run = this.run = {};
    this.change({ name: "connecting", ...this.lost });
    this.timer = setTimeout(() => this.explain(run), PATIENCE_MS);
    if (this.order.as === "fetch") this.fetch(run);
    else this.listen(run);
  }

  /** The server does not answer: perhaps because the request has not left the browser. */
  async explain(run) {
    const count = isHere(this.order.url) ? await countConnections() : 0;
    if (run !== this.run || this.state.name !== "connecting") return;
    if (count >= MOST_CONNECTIONS) this.change({ ...this.state, isFull: true });
    else this.timer = setTimeout(() => this.explain(run), PATIENCE_MS);
  }

  opened(fields) {
    clearTimeout(this.timer);
    const { lost } = this;
    this.lost = null;
    this.change({ name: "open" });
    this.heard.opened({ fields, lost, lastId: this.lastId });
  }

  event(message) {
    // An event without an id does not move the last event ID back.
    this.lastId = message.lastEventId || this.lastId;
    this.heard.event(message);
    if (message.type === this.order.endsAt) this.close("done", text("state.end"));
  }

  /** The connection is gone, or was not to be had. */
  lose(run, why, until) {
    if (run !== this.run) return;
    clearTimeout(this.timer);
    if (this.order.once || (this.order.method ?? "GET") !== "GET") {
      return why === "ended" ? this.close("done", text("state.once")) : this.close("gaveUp", text(`state.lost.${why}`));
    }
    const { since = performance.now(), tries = 0 } = this.lost ?? {};
    this.lost = { since, why, tries: tries + 1 };
    this.change({ name: "waiting", ...this.lost, until });
  }

  listen(run) {
    const { url, begun, types = [] } = this.order;
    // The first request of an EventSource has no Last-Event-ID.
    const source = this.source = begun ?? new EventSource(isHere(url) ? withParameter(url, "last_event_id", this.lastId) : url);
    // An event of the stream may be named `open` or `error`. It is a MessageEvent, and EventSource's own are not.
    const isMessage = (event) => event instanceof MessageEvent;
    for (const type of new Set(["message", "open", "error", ...types])) {
      source.addEventListener(type, (event) => run === this.run && isMessage(event) && this.event(event));
    }
    source.addEventListener("open", (event) => run === this.run && !isMessage(event) && this.opened());
    source.addEventListener("error", (event) => {
      if (run !== this.run || isMessage(event)) return;
      if (source.readyState === EventSource.CLOSED) return this.findReason(run);
      const isOpen = this.state.name === "open", failed = performance.now();
      // EventSource does not tell its reconnection time. The time between two failures shows it.
      const spacing = isOpen || !this.failed ? 0 : failed - this.failed;
      this.failed = failed;
      this.lose(run, isOpen ? "ended" : "unreachable", spacing && failed + spacing);
    });
    begun?.replay();
  }

  /** EventSource does not say why it gave up, so this sends the same request again and looks at the response. */
  async findReason(run) {
    this.change({ name: "connecting", ...this.lost });
    const url = withParameter(this.order.url.replace(/[?&]line=[^&]*/, ""), "last_event_id", this.lastId);
    const response = await this.request(run, url, { headers: fieldsOfRequest([]) });
    if (run !== this.run) return;
    this.close("gaveUp", text(response ? "state.unclear" : "state.lost.unreachable"));
  }

  /** The response that is a stream. Of any other the reader says why, and does not come back. */
  async request(run, url, init) {
    const { signal } = this.abort = new AbortController();
    try {
      const response = await fetch(url, { ...init, signal, cache: "no-store" });
      if (run === this.run) await this.judge(response, run);
      return response;
    } catch {
      if (run === this.run && await isForbidden(url) && run === this.run) this.close("gaveUp", text("state.cors"));
      return null;
    }
  }

  async judge(response, run) {
    const type = response.headers.get("Content-Type") ?? "", { status } = response;
    if (status === 200 && /^text\/event-stream *(;|$)/i.test(type)) return;
    if (status === 204) return this.close("done", text("state.204"));
    const isText = status !== 200 && /^(text\/plain|application\/json)/.test(type);
    const said = isText ? (await response.text()).trim().slice(0, 400) : "";
    if (run !== this.run) return;
    const why = status === 200 ? "state.type" : status === 400 && said ? "state.status400" : "state.status";
    this.close("gaveUp", text(why, { status, said, type: type || "–" }));
    this.heard.refused?.(status, said);
  }

  async fetch(run) {
    const { url, method = "GET", fields = [], content } = this.order;
    const headers = fieldsOfRequest(fields, this.lastId);
    const response = await this.request(run, url, { method, headers, body: content || undefined });
    if (run !== this.run) return;
    let wait, why = "unreachable";
    if (response) {
      this.opened([...response.headers]);
      why = await this.read(run, response.body.getReader());
      if (why === "tooLarge") return this.close("gaveUp", text("state.tooLarge"));
      wait = this.retryMs;
    } else {
      wait = Math.min(this.retryMs * 2 ** Math.min(this.lost?.tries ?? 0, 9), MOST_MS);
    }
    this.lose(run, why, performance.now() + wait);
    if (run === this.run && this.state.name === "waiting") this.timer = setTimeout(() => this.connect(), wait);
  }

  /** Reads to the end, and tells which it was. */
  async read(run, body) {
    const parser = new Parser({
      event: (message) => run === this.run && this.event(message),
      comment: () => run === this.run && this.heard.comment?.(),
      retry: (ms) => { this.retryMs = ms; },
    }, this.lastId);
    try {
      for (;;) {
        const { done, value } = await body.read();
        if (done || run !== this.run) return "ended";
        this.heard.bytes?.(value);
        parser.feed(value);
      }
    } catch (error) {
      return error instanceof RangeError && run === this.run ? "tooLarge" : "broken";
    }
  }
}

/** A state in a few words. @param {State} state */
export function describe({ name, why, until, isFull }) {
  if (isFull) return text("state.full");
  if (name !== "waiting") return text(`state.${name}`);
  const seconds = until ? Math.max(0, Math.ceil((until - performance.now()) / 1000)) : 0;
  return text(`state.${why}`) + text(seconds > 0 ? "state.next" : "state.again", { seconds });
}
