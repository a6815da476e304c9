/** The words: the demonstration of EventSource, and its wire. */
import { $, enable, here, make, number, press, say, set, setWithIds } from "./dom.js";
import { early, freshLine } from "./early.js";
import { READY_STATES, Reader, describe, withParameter } from "./reader.js";
import { text } from "./text.js";
import { Wire, cutLine } from "./wire.js";

/** Milliseconds between two words. */
const PACES = [4000, 2000, 1000, 500, 250, 100, 20];

/** How long a hidden page goes on with the words, and how long the tools wait for them. */
const HIDDEN_MS = 1000, PATIENCE_MS = 1000;

/** Starts them. The promise is kept when their first connection is open, or when that takes long. @returns {Promise<void>} */
export function startWords() {
  let pace = PACES.indexOf(1000), line = "", arrived = 0, isBroken = false, run = 0, hasLab = true, hiding = 0, begins;
  const caret = make("i", { className: "caret" }), wire = new Wire($("words-wire"), 80);

  const reader = new Reader({
    wires: () => Number(wire.isWatching),
    opened() {
      console.log("connection is established");
      wire.opened();
      begins();
    },
    event(event) {
      console.log(`id: ${event.lastEventId}, data: ${event.data}`);
      wire.event(event);
      arrived = performance.now();
      if (isBroken) caret.before(make("span", { className: "seam" }, text("words.seam", { id: event.lastEventId - 1 })), " ");
      isBroken = false;
      const word = make("span", { className: "word" }, event.data);
      word.dataset.id = event.lastEventId;
      caret.before(word, " ");
      $("words-id").textContent = event.lastEventId;
      if (!event.data.endsWith(".")) return;
      reader.close("done", text("words.done"));
      console.log("connection is closed");
      const mine = run;
      setTimeout(() => mine === run && wire.unwatch(), 500);
    },
    changed(state) {
      const { name, why, tries } = state;
      show(state);
      enable($("words-cut"), name === "open" && line !== "");
      $("sentence").className = `s${reader.readyState}`;
      if (name === "waiting" && tries === 1) {
        console.log(`connection state: ${reader.readyState}, error: ${why}`);
        isBroken = reader.lastId !== "";
        wire.ended(text(reader.lastId ? "wire.lostId" : "wire.lost", { id: reader.lastId }), "failed");
      } else if (!reader.isActive) {
        wire.ended(text(name === "gaveUp" ? "wire.gaveUp" : "wire.closed", { why }), name === "gaveUp" ? "failed" : "closed");
      }
      if (name === "letGo") wire.unwatch();
    },
    takeUp: () => start(reader.lastId),
  });

  function show(state) {
    const content = `${describe(state)} (${READY_STATES[state.name]})`;
    if ($("words-state").textContent === content) return;
    setWithIds($("words-state"), content);
    $("words-lamp").className = `lamp ${state.name}`;
    say("words", `${$("words-title").textContent}: ${describe(state)}`);
  }

  /** Starts from the beginning, or behind the word with this id. */
  async function start(lastId) {
    const mine = ++run;
    reader.end();
    const begun = mine === 1 ? early : null;
    line = hasLab ? begun?.line ?? freshLine() : "";
    isBroken = false;
    if (lastId) {
      wire.ended(text("words.again", { id: lastId }), "closed");
    } else {
      wire.clear();
      if (!begun) $("sentence").replaceChildren(caret);
      $("words-id").textContent = text("none");
      arrived = 0;
    }
    // A screen reader does not read out words that are faster than speech.
    $("sentence").ariaLive = PACES[pace] < 500 ? "off" : "polite";
    const isWatched = !line || await wire.watch(line, begun?.watched), source = await begun?.words;
    if (mine !== run) return source?.close();
    if (begun) $("sentence").replaceChildren(caret);
    if (!isWatched) {
      hasLab = false;
      line = "";
      $("wire-off").hidden = false;
      showPace();
    }
    const path = PACES[pace] === 1000 ? "sse/mvc/words" : `lab?interval=${PACES[pace]}`;
    reader.open({ url: withParameter(here(path), "line", line), as: "eventsource", lastId, begun: source });
  }

  function showPace() {
    $("words-pace").textContent = number(1000 / PACES[pace]);
    enable($("words-slower"), hasLab && pace > 0);
    enable($("words-faster"), hasLab && pace < PACES.length - 1);
  }

  function step(by) {
    pace = Math.min(Math.max(pace + by, 0), PACES.length - 1);
    showPace();
    say("pace", `${$("words-unit").textContent}: ${$("words-pace").textContent}`);
    if (reader.isActive) start(reader.lastId);
  }

  press($("words-start"), () => start(""));
  press($("words-cut"), () => cutLine(line));
  press($("words-slower"), () => step(-1));
  press($("words-faster"), () => step(1));
  document.addEventListener("visibilitychange", () => {
    clearTimeout(hiding);
    if (document.hidden) hiding = setTimeout(() => reader.letGo(), HIDDEN_MS);
  });
  setInterval(() => {
    set($("words-since"), arrived ? `${((performance.now() - arrived) / 1000).toFixed(1)} s` : "–");
    if (reader.state.name === "waiting") show(reader.state);
  }, 100);
  showPace();
  if (early || !document.hidden) start("");
  else document.addEventListener("visibilitychange", () => start(""), { once: true });
  return new Promise((resolve) => {
    begins = resolve;
    setTimeout(resolve, PATIENCE_MS);
  });
}
