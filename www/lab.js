/** The laboratory: presets, and the parameters of /lab. */
import { mark } from "./bar.js";
import { $, here, make, number, press } from "./dom.js";
import { PARAMETERS, PRESETS } from "./presets.js";
import { begin, onRefusal, onState, turnLabOff } from "./tool.js";
import { text } from "./text.js";

/** The time from edge to edge of the chart: so many intervals, within bounds. */
const CHART_INTERVALS = 20, LEAST_CHART_MS = 10000, MOST_CHART_MS = 600000;

export function start() {
  const inputs = {}, buttons = {};
  /** The preset whose stream runs, and whether a change came after it. */
  let running = "", isOurs = false;

  for (const [group, parameters] of Object.entries(PARAMETERS)) {
    const fields = parameters.map(([name, takes, without]) => field(name, takes, without));
    $("order").append(make("fieldset", {}, make("legend", {}, text(`lab.group.${group}`)), ...fields));
  }

  function field(name, takes, without) {
    const id = `lab-${name}`, isRange = typeof takes[0] === "number", isArea = takes === "area";
    const input = inputs[name] = Array.isArray(takes) && !isRange
      ? make("select", { id, name }, ...takes.map((value) => make("option", { textContent: value })))
      : make(isArea ? "textarea" : "input", isArea ? { id, name, rows: 2 } : { id, name, type: "text" });
    if (isRange) Object.assign(input, { type: "number", min: takes[0], max: takes[1] });
    const range = isRange ? text("lab.range", { least: number(takes[0]), most: number(takes[1]) }) : "";
    const otherwise = without ? text("lab.without", { value: without }) : "";
    const hint = make("small", { id: `${id}-hint` }, make("code", {}, name), [range, otherwise].filter(Boolean).map((part) => ` · ${part}`).join(""));
    input.setAttribute("aria-describedby", hint.id);
    return make("label", { className: isArea ? "wide" : "" }, text(`lab.${name}`), input, hint);
  }

  const isGiven = (input) => input.value !== "" && input.value !== input.options?.[0].value;
  function url() {
    const given = Object.values(inputs).filter(isGiven).map((input) => [input.name, input.value]);
    return here(given.length > 0 ? `lab?${new URLSearchParams(given)}` : "lab?interval=1000");
  }

  const unmark = () => Object.values(inputs).forEach((input) => mark(input));

  /** Runs the stream that the fields say. The browser checks ranges; the server checks how parameters go together. */
  function run() {
    unmark();
    const wrong = Object.values(inputs).find((input) => !input.checkValidity());
    if (wrong) return mark(wrong, text("lab.outside", { least: number(wrong.min), most: number(wrong.max) }));
    const interval = inputs.interval.value || 1000;
    isOurs = true;
    begin({ url: url(), as: $("lab-as").value, types: inputs.event.value ? [inputs.event.value] : [] }, {
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
      const fields = [["Content-Type", "application/json"]];
      begin({ url: here(sample), as: "fetch", method: "POST", fields, content: JSON.stringify(content) });
    } else {
      for (const input of Object.values(inputs)) input.value = values[input.name] ?? input.options?.[0].value ?? "";
      run();
    }
    running = name;
    showRunning(true);
    if (!matchMedia("(min-width: 68rem)").matches) $("reader").scrollIntoView({ block: "start" });
  }

  function showRunning(isRunning) {
    for (const [name, button] of Object.entries(buttons)) button.ariaPressed = isRunning && name === running;
  }

  for (const preset of PRESETS) {
    const button = buttons[preset.name] = make("button", { type: "button", textContent: text(`preset.${preset.name}.0`), ariaPressed: "false" });
    button.dataset.preset = preset.name;
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
    const input = status === 400 && isOurs && inputs[/^(?:The parameter )?(\w+)/.exec(said)?.[1]];
    if (!input) return;
    $("adjust").hidden = $("run").hidden = false;
    mark(input, said);
  });

  // Where other machines reach the server, it has the laboratory only with --lab.
  fetch(here("lab?status=204"), { cache: "no-store" }).then(({ status }) => {
    if (status !== 404) return;
    turnLabOff();
    $("lab-off").hidden = false;
    for (const part of document.querySelectorAll(".lab-on")) part.hidden = true;
    for (const { name, sample } of PRESETS) buttons[name].hidden = !sample;
  }, () => {});
}
