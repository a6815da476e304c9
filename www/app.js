/**
 * Starts the page. The browser runs these modules as they are; there is no build step. The words come first: what they do
 * not need is loaded behind them.
 */
import { $, fillLines } from "./dom.js";
import { translate } from "./text.js";
import { startWords } from "./words.js";

async function startTools() {
  const [panels, tool, lab, editor, channels] = await Promise.all([
    import("./panels.js"), import("./tool.js"), import("./lab.js"), import("./editor.js"), import("./channels.js"),
  ]);
  tool.startTool();
  lab.startLab();
  editor.startEditor();
  channels.startChannels();
  panels.startPanels();
  document.body.dataset.isReady = "";
}

translate();
fillLines();
if (window.EventSource) {
  startWords();
  startTools();
} else {
  $("unsupported").hidden = false;
  for (const part of document.querySelectorAll(".live")) part.hidden = true;
}
