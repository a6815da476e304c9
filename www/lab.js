/** The laboratory: presets, and the parameters of /lab. */
import { mark } from "./bar.js";
import { $, here, make, number, press } from "./dom.js";
import { PARAMETERS, PRESETS } from "./presets.js";
import { begin, onRefusal, onState, turnLabOff } from "./tool.js";
import { text } from "./text.js";

/** The time from edge to edge of the chart: so many intervals, within bounds. */
const CHART_INTERVALS = 20, LEAST_CHART_MS = 10000, MOST_CHART_MS = 600000;

/** Texts of several lines. */
const AREAS = ["text", "data"];

function field(name, takes, without) {
  const id = `lab-${name}`, isRange = typeof takes?.[0] === "number", isArea = AREAS.includes(name), range = { least: takes?.[0], most: takes?.[1] };
  const input = make(isArea ? "textarea" : takes && !isRange ? "select" : "input", { id, name });
  if (isRange) Object.assign(input, { type: "number", min: range.least, max: range.most });
  else if (takes) input.append(...takes.map((value) => make("option", {}, value)));
  else if (isArea) input.rows = 2;
  else input.type = "text";
  const parts = [isRange && rangeText("lab.range", range), without !== undefined && text("lab.without", { value: without })];
  const hint = make("small", { id: `${id}-hint` }, make("code", {}, name), ...parts.filter(Boolean).map((part) => ` · ${part}`));
  input.setAttribute("aria-describedby", hint.id);
  return make("label", { className: isArea ? "wide" : "" }, text(`lab.${name}`), input, hint);
}

const rangeText = (key, { least, most }) => text(key, { least: number(least), most: number(most) });

export function start() {
  for (const [group, parameters] of Object.entries(PARAMETERS)) {
    $("order").append(make("fieldset", {}, make("legend", {}, text(`lab.${group}`)), ...parameters.map((parameter) => field(...parameter))));
  }
  const inputs = [...$("order").elements].filter((element) => element.name), input = (name) => $("order").elements[name];
  /** The preset whose stream runs, and whether the stream is one of the laboratory. */
  let running = "", isOurs = false;

  const standard = (input) => input.options?.[0].value ?? "";

  /** Runs the stream that the fields say. The browser checks ranges; the server checks how parameters go together. */
  function run() {
    for (const input of inputs) mark(input);
    const wrong = inputs.find((input) => !input.checkValidity());
    if (wrong) return mark(wrong, rangeText("lab.outside", { least: wrong.min, most: wrong.max }));
    const given = inputs.filter((input) => input.value !== standard(input)).map((input) => [input.name, input.value]);
    const interval = input("interval").value || 1000, event = input("event").value;
    isOurs = true;
    begin({ url: here(`lab?${given.length > 0 ? new URLSearchParams(given) : "interval=1000"}`), as: $("lab-as").value, types: event ? [event] : [] }, {
      chartMs: Math.min(Math.max(CHART_INTERVALS * interval, LEAST_CHART_MS), MOST_CHART_MS),
      // Bytes that come a thousand times a second cannot be read.
      wire: interval === "1" ? false : undefined,
    });
  }

  function take({ name, values = {}, sample, content }) {
    $("preset-note").textContent = text(`preset.${name}.1`);
    $("adjust").hidden = $("run").hidden = Boolean(sample);
    if (sample) {
      isOurs = true;
      begin({ url: here(sample), as: "fetch", method: "POST", fields: [["Content-Type", "application/json"]], content: JSON.stringify(content) });
    } else {
      for (const input of inputs) input.value = values[input.name] ?? standard(input);
      run();
    }
    running = name;
    showRunning(true);
    if (!matchMedia("(min-width: 68rem)").matches) $("reader").scrollIntoView({ block: "start" });
  }

  function showRunning(isRunning) {
    for (const button of $("presets").children) button.ariaPressed = isRunning && button.dataset.preset === running;
  }

  for (const preset of PRESETS) {
    const button = make("button", { type: "button", ariaPressed: "false" }, text(`preset.${preset.name}.0`));
    button.dataset.preset = preset.name;
    if (!preset.sample) button.className = "lab-on";
    press(button, () => take(preset));
    $("presets").append(button);
  }

  $("order").onsubmit = (event) => {
    event.preventDefault();
    run();
  };
  $("order").oninput = () => {
    running = "";
    showRunning(false);
  };
  onState((state, reader) => {
    if (state.name === "connecting" && !/\/(lab|samples\/)/.test(reader.order.url)) running = "";
    showRunning(reader.isActive);
  });
  // A sentence of the server begins with the name of the parameter at fault.
  onRefusal((status, said) => {
    const wrong = status === 400 && isOurs && input(/^(?:The parameter )?(\w+)/.exec(said)?.[1]);
    if (!wrong) return;
    $("adjust").hidden = $("run").hidden = false;
    mark(wrong, said);
  });

  // Where other machines reach the server, it has the laboratory only with --lab.
  fetch(here("lab?status=204"), { cache: "no-store" }).then(({ status }) => {
    if (status !== 404) return;
    turnLabOff();
    $("lab-off").hidden = false;
    for (const part of document.querySelectorAll(".lab-on")) part.hidden = true;
  }, () => {});
}
