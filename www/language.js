/** The switch of the language, in the head of the page. */
import { make } from "./dom.js";
import { LANGUAGES, choose, language, text } from "./text.js";

export function start() {
  const option = ([name, { own, tag }]) => make("option", { value: name, lang: tag, selected: name === language }, own);
  const select = make("select", { id: "language", ariaLabel: text("language") }, ...Object.entries(LANGUAGES).map(option));
  select.onchange = () => choose(select.value);
  document.querySelector("header").append(select);
}
