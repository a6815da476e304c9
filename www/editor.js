/** The editor of an event stream: it plays what is typed, saves it, and sends it to a channel. */
import { send } from "./channels.js";
import { $, press, save, say } from "./dom.js";
import { readRecording } from "./recording.js";
import { playHere } from "./tool.js";
import { text } from "./text.js";

/** How long after the last key the editor counts. */
const COUNT_MS = 300;

export function start() {
  const area = $("write-text");
  let timer = 0;

  function count() {
    const blocks = readRecording(area.value);
    const events = blocks.filter(({ lines }) => /^data(:|$)/m.test(lines)).length;
    const seconds = blocks.reduce((sum, { delay }) => sum + delay, 0) / 1000;
    $("write-count").textContent = text("write.count", { events, seconds: seconds.toFixed(1) });
  }

  area.oninput = () => {
    clearTimeout(timer);
    timer = setTimeout(count, COUNT_MS);
  };
  press($("write-play"), () => playHere(area.value, $("write-tab").textContent));
  press($("write-save"), () => save("stream.sse", area.value.endsWith("\n\n") ? area.value : `${area.value.trimEnd()}\n\n`));
  press($("write-send"), async () => {
    const told = await send({ content: `${area.value.trimEnd()}\n\n`, isStream: true });
    $("write-told").textContent = told;
    say("write", told);
  });
  count();
}
