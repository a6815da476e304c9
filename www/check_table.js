/** The section that checks the address in the bar. */
import { order } from "./bar.js";
import { $, enable, make, press } from "./dom.js";
import { text } from "./text.js";

/** How long a stream is watched. */
const SECONDS = 10;

function row({ rule, outcome, seen, why, remedy }) {
  const reason = outcome === "pass" || outcome === "unjudged" ? [] : [
    make("p", {}, make("b", {}, text("check.why")), ` ${why}`), make("p", {}, make("b", {}, text("check.remedy")), ` ${remedy}`)];
  return make("tr", { className: outcome }, make("td", {}, text(`check.${outcome}`)), make("th", { scope: "row" }, rule),
    make("td", {}, make("p", {}, seen), ...reason));
}

export function start() {
  const showLine = () => {
    const url = order({ isQuiet: true })?.url;
    if (url) $("check-line").textContent = `newswire check '${url}'`;
  };
  press($("check-run"), async () => {
    const given = order();
    if (!given) return;
    showLine();
    enable($("check-run"), false);
    $("check-table").hidden = true;
    $("check-state").textContent = text("check.running", { url: given.url, seconds: SECONDS });
    const { check } = await import("./check.js");
    const findings = await check(given.url, { seconds: SECONDS, fields: given.fields });
    const count = (outcome) => findings.filter((finding) => finding.outcome === outcome).length;
    $("check-state").textContent = text("check.counts", { url: given.url, pass: count("pass"), info: count("info"),
      warn: count("warn"), fail: count("fail"), unjudged: count("unjudged") });
    $("check-table").tBodies[0].replaceChildren(...findings.map(row));
    $("check-table").hidden = false;
    enable($("check-run"), true);
  });
  $("bar").addEventListener("input", showLine);
}
