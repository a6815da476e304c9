/**
 * Starts the page. The browser runs these modules as they are; there is no build step. The words come first: what they do
 * not need is loaded behind them.
 */
import { $, fillLines } from "./dom.js";
import { startLanguage } from "./language.js";
import { translate } from "./text.js";
import { startWords } from "./words.js";

async function startTools() {
  const [panels, tool, lab, editor, channels, table, lessons] = await Promise.all([
    import("./panels.js"), import("./tool.js"), import("./lab.js"), import("./editor.js"), import("./channels.js"),
    import("./check_table.js"), import("./lessons.js"),
  ]);
  tool.startTool();
  lab.startLab();
  editor.startEditor();
  channels.startChannels();
  table.startCheck();
  lessons.startLessons();
  panels.startPanels();
  document.body.dataset.isReady = "";
}

translate();
fillLines();
startLanguage();
if (window.EventSource) {
  startWords();
  startTools();
} else {
  $("unsupported").hidden = false;
  for (const part of document.querySelectorAll(".live")) part.hidden = true;
}
