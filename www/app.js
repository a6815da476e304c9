/** Starts the page. The words come first; what they do not need is loaded behind them. */
import { fillLines } from "./dom.js";
import { translate } from "./text.js";
import { startWords } from "./words.js";
// What these import stands here, too, so that the browser asks for all at once.
import "./parser.js";
import "./reader.js";
import "./tabs.js";
import "./wire.js";

translate();
fillLines();
await startWords();
const modules = await Promise.all([
  import("./language.js"), import("./panels.js"), import("./tool.js"), import("./lab.js"), import("./editor.js"),
  import("./channels.js"), import("./check_table.js"), import("./lessons.js"),
]);
for (const { start } of modules) start();
document.body.dataset.isReady = "";
