/** Channels: join, publish, see how many listen. */
import { mark } from "./bar.js";
import { $, here, number, say, set, setWithIds } from "./dom.js";
import { floodLine, publishLine } from "./snippets.js";
import { begin, currentOrder, lastIdOf, onRefusal, onState, stop } from "./tool.js";
import { text } from "./text.js";

/** The server's rule for a name, and for one that is read, which may end in a star. */
const NAME = /^[\w-][\w.-]{0,63}$/, PATTERN = /^[\w$-][\w.$-]{0,63}\*?$/;
/** How often the page asks how many listen. */
const COUNT_MS = 5000;

/** The server has refused to be read without a key. */
let readsByKey = false;

const key = () => $("channel-token").value;
const authorization = () => key() ? [["Authorization", `Bearer ${key()}`]] : [];
const typed = () => $("channel-name").value.split(",").map((name) => name.trim()).filter(Boolean);
const urlOf = (names) => here(`channels/${names.join(",")}`);
const isJoined = () => currentOrder()?.url === urlOf(typed());

/** The names in the form, or null when one of them is no name. */
function names() {
  const names = typed(), isRight = names.length > 0 && names.every((name) => PATTERN.test(name));
  mark($("channel-name"), isRight ? "" : text("channel.nameBad"));
  return isRight ? names : null;
}

/** What the list of the server says of a channel. It has the channels that the key may see. */
async function look(name) {
  const response = await fetch(here("channels"), { cache: "no-store", headers: authorization() }).catch(() => null);
  const channels = response?.ok ? await response.json() : [];
  return channels.find((channel) => channel.name === name);
}

/**
 * Subscribes behind the last event that came. The first time, that is the newest event of the channel: a client that names
 * an id misses nothing when its connection breaks before the first event.
 */
async function join() {
  const wanted = names();
  if (!wanted) return;
  const url = urlOf(wanted), before = lastIdOf(url);
  const lastId = before || wanted.length > 1 ? before : (await look(wanted[0]))?.last_id ?? "earliest";
  begin({ url, as: "fetch", lastId, fields: readsByKey ? authorization() : [] }, { isResumed: before !== "" });
}

function tell(sentence, state = "gaveUp") {
  setWithIds($("channel-why"), sentence);
  $("channel-why").hidden = !sentence;
  $("channel-why").className = `notice ${state}`;
  if (sentence) say("publish", sentence);
  return sentence;
}

/**
 * Publishes, and says what became of it.
 * @param {{ content: string, type?: string, isStream?: boolean }} publication @returns {Promise<string>}
 */
export async function send({ content, type = "", isStream = false }) {
  const [name, ...others] = names() ?? [];
  if (!name) return text("channel.nameBad");
  if (others.length > 0 || !NAME.test(name)) return tell(text("channel.one"));
  mark($("channel-type"));
  const headers = [...authorization(), ...(isStream ? [["Content-Type", "text/event-stream"]] : [])];
  const query = type ? `?event=${encodeURIComponent(type)}` : "";
  try {
    const response = await fetch(urlOf([name]) + query, { method: "POST", body: content, headers });
    const answer = await response.text();
    if (!response.ok) return refuse(response.status, answer.trim());
    const { id = "–", subscribers, count = 1 } = JSON.parse(answer);
    showCount(subscribers);
    return tell(text(count === 1 ? "channel.published" : "channel.publishedMany", { id, count, name, subscribers: number(subscribers) }), "done");
  } catch {
    return tell(text("state.lost.unreachable"));
  }
}

function askForKey(sentOne) {
  $("channel-key").open = true;
  mark($("channel-token"), text(sentOne ? "channel.keyWrong" : "channel.keyNone"));
}

function refuse(status, said) {
  if (status === 401 || status === 403 && key()) {
    askForKey(key());
    return tell(key() ? text("channel.keyWrong") : said);
  }
  if (status !== 400 || !/type/.test(said)) return tell(said);
  tell("");
  mark($("channel-type"), said);
  return said;
}

const showCount = (subscribers) =>
  set($("channel-count"), subscribers === undefined ? "" : text("channel.listen", { count: number(subscribers) }));

async function count() {
  const [name, ...others] = typed();
  if (document.hidden || others.length > 0 || $("channel").hidden) return;
  const channel = await look(name);
  if (name === typed()[0]) showCount(channel?.subscribers);
}

/** A name that is none does not go into the lines for a terminal. */
function showLines() {
  const [name = "", ...others] = typed(), isName = NAME.test(name) && others.length === 0;
  for (const line of document.querySelectorAll("#channel .line")) line.hidden = !isName;
  if (!isName) return;
  const type = $("channel-type").value.trim(), hasKey = key() !== "" || $("channel-token").hasAttribute("aria-invalid");
  $("type-publish").textContent = publishLine({ name, type, content: $("channel-text").value, hasKey });
  $("type-flood").textContent = floodLine(name, hasKey);
}

const showJoined = () => set($("channel-join"), text(isJoined() ? "channel.leave" : "channel.join"));

export function start() {
  $("listen").onsubmit = (event) => {
    event.preventDefault();
    if (isJoined()) stop(text("channel.left"));
    else join();
  };
  $("publish").onsubmit = async (event) => {
    event.preventDefault();
    await send({ content: $("channel-text").value, type: $("channel-type").value.trim() });
    showLines();
    if (document.activeElement === $("channel-text")) $("channel-text").select();
  };
  // In a field of several lines, Enter alone is a line.
  $("channel-text").onkeydown = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("publish").requestSubmit();
  };
  $("channel").oninput = (event) => {
    if (event.target.id === "channel-name") names();
    else mark(event.target);
    showJoined();
    showLines();
  };
  onState((state) => {
    showJoined();
    if (state.name === "open" && isJoined()) count();
  });
  onRefusal((status, said, order) => {
    if (status !== 401 && status !== 403 || !order.endsAt) return;
    askForKey(readsByKey && key());
    readsByKey = true;
  });
  setInterval(count, COUNT_MS);
  showJoined();
  showLines();
}
