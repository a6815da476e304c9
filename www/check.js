/** The rules of `newswire check` that a browser can see, with the names and the words of the command. */
import { gather } from "./check_watch.js";
import { load, text } from "./text.js";

/** @typedef {["pass" | "info" | "warn" | "fail" | "unjudged", string]} Finding an outcome, and what was seen */

/** The silence after which proxies cut a connection. */
const PROXY_MS = 60000;
/** A wait that a person notices. */
const LATE_MS = 500;
/** Events that are so far apart come at once only when they were held. */
const HELD_MS = 1000;

const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;

const shown = (value) => JSON.stringify(value).replace(/^(.{70}).+/s, "$1…");

const pass = (isRight, otherwise) => isRight ? "pass" : otherwise;

function said(exchange, name) {
  const value = exchange.field(name);
  return value ? text("found.field", { name, value: shown(value) }) : text("found.noField", { name });
}

const statusOf = ({ status, statusText }) => `${status} ${statusText}`.trim();

/** Passes where nothing was found. */
function none(kind, found) {
  const what = text(`found.what.${kind}`);
  if (found.length === 0) return ["pass", text("found.none", { what })];
  return ["warn", text("found.some", { count: found.length, what, first: shown(found[0]) })];
}

/** Of each rule: what it needs, and how it judges. @type {Record<string, [string, (seen: any) => Finding]>} */
const RULES = {
  status: ["nothing", ({ first }) => first.response
    ? [pass(first.isOk, "fail"), text("found.status", { status: statusOf(first.response), url: first.response.url }) + first.sentence]
    : ["fail", text(`found.${first.missing}`)]],
  "media-type": ["response", ({ first }) => [pass(first.mediaType === "text/event-stream", "fail"), said(first, "Content-Type")]],
  charset: ["response", ({ first }) => {
    const named = /charset="? *([^;" ]*)/i.exec(first.field("Content-Type"))?.[1] ?? "utf-8";
    return [pass(named.toLowerCase() === "utf-8", "warn"), said(first, "Content-Type")];
  }],
  caching: ["response", ({ first, isForeign }) => {
    const directives = first.field("Cache-Control").toLowerCase().split(",").map((part) => part.trim());
    const isKept = (directive) => directive === "public" || /^(max-age|s-maxage)=(?!0$)/.test(directive);
    const isRight = directives.some((directive) => /^(no-store|no-cache)(=|$)/.test(directive));
    const outcome = isRight ? "pass" : directives.some(isKept) ? "fail" : "warn";
    // A page does not see Age of another origin.
    const names = ["Cache-Control", ...(isForeign ? [] : ["Age"])];
    return [first.field("Age") ? "fail" : outcome, names.map((name) => said(first, name)).join(", ")];
  }],
  "no-transform": ["response", ({ first }) =>
    [pass(/(^|,) *no-transform *(,|$)/i.test(first.field("Cache-Control")), "warn"), said(first, "Cache-Control")]],
  encoding: ["stream", ({ first: { isUtf8 } }) => isUtf8 ? ["pass", "UTF-8"] : ["fail", text("found.notUtf8")]],
  bom: ["stream", ({ first }) => {
    const count = first.text.split(/\r\n|\n|\r/).filter((line) => line.startsWith("\ufeff")).length;
    const isFirst = first.text.startsWith("\ufeff");
    return [count === 0 ? "pass" : isFirst && count === 1 ? "warn" : "fail", text("found.bom", { count })];
  }],
  nul: ["stream", ({ first }) => {
    const bytes = first.text.split("\0").length - 1;
    const ids = first.lines.filter(({ name, value }) => name === "id" && value.includes("\0")).length;
    return [ids > 0 ? "fail" : pass(bytes === 0, "warn"), text("found.nul", { bytes, ids })];
  }],
  "line-ends": ["stream", ({ first }) => {
    const ends = [...new Set(first.lines.map(({ end }) => JSON.stringify(end).slice(1, -1)))].sort();
    return [pass(ends.length < 2 && !ends.includes("\\r"), "warn"), ends.join(text("found.and"))];
  }],
  fields: ["stream", ({ first }) => {
    const known = ["", "data", "event", "id", "retry"];
    const unknown = first.lines.map(({ name }) => name).filter((name) => !known.includes(name));
    const alike = unknown.find((name) => known.includes(name.trim().toLowerCase()));
    return alike === undefined ? none("fields", unknown) : ["fail", text("found.noName", { name: shown(alike) })];
  }],
  retry: ["stream", ({ first }) => {
    const values = first.lines.filter(({ name }) => name === "retry").map(({ value }) => value);
    const isBad = values.some((value) => !/^[0-9]+$/.test(value)), isOdd = values.some((value) => value < 100 || value > 3600000);
    return [isBad ? "fail" : pass(!isOdd, "warn"), text("found.retry", { count: values.length, values: shown(values) })];
  }],
  "empty-blocks": ["stream", ({ first }) => none("blocks", first.empty)],
  unfinished: ["stream", ({ first }) => {
    const isOld = first.pendingAt + HELD_MS / 2 < first.endedAt && /[\r\n]$/.test(first.text);
    if (first.hasPending && first.end) return ["fail", text("found.within")];
    return first.hasPending && isOld ? ["fail", text("found.noBlank")] : ["pass", text("found.blank")];
  }],
  json: ["events", ({ first }) => {
    // A log line may begin with a time in brackets, and clients compare `[DONE]` as text.
    const isMeant = (data) => /^\s*(\{\s*(["'}]|$)|\[[\s\d.-]*[{["',\]].*\]\s*$)/s.test(data);
    const isJson = (data) => {
      try {
        return JSON.parse(data) !== undefined;
      } catch {
        return false;
      }
    };
    return none("json", first.events.map(({ data }) => data).filter((data) => isMeant(data) && !isJson(data)));
  }],
  "event-names": ["events", ({ first }) => none("names", first.events.map(({ kind }) => kind).filter((kind) => kind === "open" || kind === "error"))],
  "first-byte": ["stream", ({ first }) => {
    const event = first.events[0]?.at;
    const isHeld = first.headAt >= LATE_MS && event !== undefined && event < first.headAt + LATE_MS / 2;
    const came = event === undefined ? text("found.noEvent") : text("found.firstEvent", { time: seconds(event) });
    return [pass(!isHeld, "warn"), text("found.head", { time: seconds(first.headAt), came })];
  }],
  buffering: ["stream", buffering],
  heartbeat: ["stream", heartbeat],
  ids: ["events", ids],
  resume: ["events", resume],
  ending: ["stream", ending],
};

/** Of an id that begins with milliseconds since 1970. */
const timestamp = ({ id }) => /^\d{13}(?!\d)/.test(id) ? Number(id.slice(0, 13)) : NaN;

function buffering({ first: { text: content, events, bursts, end } }) {
  const isCut = bursts.some((burst, at) => at > 0 && !/[\r\n]/.test(content[bursts[at - 1].end - 1]) && burst.from - bursts[at - 1].until >= LATE_MS / 2);
  const isNginx = isCut && bursts.some(({ size }) => size % 4096 === 0);
  const pieces = isNginx ? text("found.pieces") : "";
  let before = 0, crowded = 0;
  for (const { from, until } of bursts) {
    const together = events.filter(({ at }) => at >= from && at <= until);
    const times = together.map(timestamp).filter((time) => !isNaN(time));
    const spread = times.length ? Math.max(...times) - Math.min(...times) : 0;
    // Events that are further apart than the wait for them are a history.
    const isHistory = spread > until - before + LATE_MS;
    if (!isHistory && spread >= until - from + HELD_MS) {
      return ["fail", text("found.atOnce", { count: together.length, spread: seconds(spread), pieces })];
    }
    before = from;
    crowded += together.length > 2;
  }
  const count = events.length, values = { count, bursts: bursts.length };
  if (bursts.length === 1 && end === "clean" && count > 1 && bursts[0].from >= HELD_MS) {
    return ["fail", text("found.allAtOnce", { count, time: seconds(bursts[0].from) })];
  }
  if (isCut) return [isNginx ? "fail" : "warn", text("found.pauses", { pieces })];
  const isUndated = events.every((event) => isNaN(timestamp(event)));
  const isCrowded = crowded > 2 && crowded === bursts.length && isUndated;
  return isCrowded ? ["warn", text("found.undated", values)] : ["pass", text("found.bursts", values)];
}

function heartbeat({ first, ms }) {
  const times = [first.headAt, ...first.reads.map(({ at }) => at), first.endedAt];
  const longest = Math.max(...times.slice(1).map((time, at) => time - times[at]));
  const opening = first.bursts[0]?.end ?? 0;
  const comments = first.text.slice(opening).split(/\r\n|\n|\r/).filter((line) => line.startsWith(":")).length;
  const found = text("found.comments", { comments, longest: seconds(longest) });
  if (longest >= PROXY_MS) return ["warn", found];
  return [pass(comments > 0 || ms >= PROXY_MS, "info"), found];
}

function ids({ first: { events } }) {
  const with_ = events.filter(({ id }) => id), kinds = new Set(with_.map(({ kind }) => kind));
  const twice = with_.find(({ id }, at) => with_.findIndex((other) => other.id === id) < at);
  if (twice) return ["fail", text("found.twice", { id: shown(twice.id) })];
  if (with_.length === 0) return ["warn", text("found.noIds", { count: events.length })];
  // Events of another type may be about the stream, and no part of it.
  const lacks = events.filter(({ id, kind }) => !id && kinds.has(kind)).length;
  if (lacks > 0) return ["warn", text("found.someIds", { lacks, count: events.length })];
  return ["pass", text("found.ids", { count: with_.length })];
}

function resume({ first, resumed, isForeign }) {
  if (!resumed) return ["unjudged", text("found.noId")];
  const { id, exchange: { response, missing, events } } = resumed;
  const after = (outcome, found) => [outcome, text("found.after", { id: shown(id), found })];
  // EventSource may send Last-Event-ID to every server. The fetch of a page needs leave for it.
  if (!response) return missing === "cors" && isForeign ? ["unjudged", text("found.preflight")] : after("fail", text(`found.${missing}`));
  const before = first.events.filter((event) => event.id), came = events.filter((event) => event.id);
  const at = before.findIndex((event) => event.id === id);
  const known = before.slice(0, at + 1), missed = before.slice(at + 1);
  if (response.status === 204 && missed.length === 0) return after("pass", "204");
  if (response.status !== 200) return after("fail", statusOf(response));
  const start = events.slice(0, events.findIndex((event) => event.id) >>> 0);
  const told = start.find(({ kind }) => first.events.every((event) => event.kind !== kind));
  if (told) return after("pass", text("found.told", { kind: shown(told.kind) }));
  if (came.length && known.some((event) => event.id === came[0].id)) return after("fail", text("found.repeats", { id: shown(came[0].id) }));
  for (const [n, event] of missed.slice(0, came.length).entries()) {
    if (came[n].id !== event.id) return after("fail", text("found.skips", { came: shown(came[n].id), missed: shown(event.id) }));
    if (came[n].data !== event.data) return after("fail", text("found.otherData", { id: shown(event.id) }));
  }
  const count = Math.min(came.length, missed.length);
  return after(pass(missed.length === 0 || came.length > 0, "fail"), text("found.again", { count, missed: missed.length }));
}

function ending({ first, again, isForeign }) {
  const after = seconds(first.endedAt);
  if (first.end === "broken") return ["fail", text("found.broke", { after })];
  if (!again) return ["pass", text("found.open", { after })];
  const { response, missing, events } = again;
  if (!response) return missing === "cors" && isForeign ? ["unjudged", text("found.preflight")] : ["fail", text("found.thenNot")];
  if (response.status === 204) return ["pass", text("found.then204")];
  if (response.status !== 200) return ["warn", text("found.thenStatus", { status: statusOf(response) })];
  const isNew = events.some(({ id, data }) => first.events.every((event) => event.id !== id || event.data !== data));
  return isNew ? ["pass", text("found.thenNew", { after })] : ["fail", text("found.thenSame")];
}

function lacks(needs, { first }) {
  if (needs === "response" && !first.response) return "found.noResponse";
  if ((needs === "stream" || needs === "events") && !first.isStream) return "found.noStream";
  return needs === "events" && first.events.length === 0 ? "found.noEvents" : "";
}

/**
 * Judges a stream, rule by rule, after so many seconds. The fields are sent with each request.
 * @param {string} url @param {{ seconds?: number, fields?: [string, string][] }} [options]
 * @returns {Promise<{ rule: string, outcome: string, seen: string, why: string, remedy: string }[]>}
 */
export async function check(url, { seconds: time = 10, fields = [] } = {}) {
  await load("check_");
  const ms = time * 1000, seen = { ...await gather(url, fields, ms), ms };
  return Object.entries(RULES).map(([rule, [needs, judge]]) => {
    const missing = lacks(needs, seen);
    const [outcome, found] = missing ? ["unjudged", text(missing)] : judge(seen);
    return { rule, outcome, seen: found, why: text(`rule.${rule}.0`), remedy: text(`rule.${rule}.1`) };
  });
}
