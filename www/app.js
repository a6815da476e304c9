/** Starts the page. The browser runs these modules as they are; there is no build step. */
import { startCheck } from "./check_table.js";
import { startChannels } from "./channels.js";
import { $, fillLines } from "./dom.js";
import { startEditor } from "./editor.js";
import { startLab } from "./lab.js";
import { startLanguage } from "./language.js";
import { startLessons } from "./lessons.js";
import { startPanels } from "./panels.js";
import { translate } from "./text.js";
import { startTool } from "./tool.js";
import { startWords } from "./words.js";

translate();
fillLines();
startLanguage();
startLessons();
if (window.EventSource) {
  startWords();
  startPanels();
  startTool();
  startLab();
  startEditor();
  startChannels();
  startCheck();
} else {
  $("unsupported").hidden = false;
  for (const part of document.querySelectorAll(".live")) part.hidden = true;
}
