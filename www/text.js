/** The texts of the page. Each language has a file in text/; what it lacks is English. */
import en from "./text/en.js";

/** The languages, each in its own name. A new one needs a line here and a file in text/. */
export const LANGUAGES = { en: "English" };

/** The language that was chosen, else the first language of the browser that the page has. */
function preferred() {
  const wanted = navigator.languages.map((tag) => tag.split("-")[0]);
  try {
    wanted.unshift(localStorage.getItem("language"));
  } catch {
    // A browser may refuse storage to a page. The browser's own languages remain.
  }
  return wanted.find((name) => name in LANGUAGES) ?? "en";
}

export const language = preferred();
const texts = language === "en" ? en : { ...en, ...(await import(`./text/${language}.js`)).default };

/** Loads the page again in another language. @param {string} name */
export function choose(name) {
  localStorage.setItem("language", name);
  location.reload();
}

/**
 * The text with this key. `{name}` in it stands for the value of that name.
 * @param {string} key
 * @param {Record<string, string | number>} [values]
 */
export const text = (key, values = {}) =>
  (texts[key] ?? key).replace(/\{(\w+)\}/g, (all, name) => values[name] ?? all);

/**
 * Puts the language's texts into the elements of the document. The English ones stand in index.html, where they are seen
 * without JavaScript, too: `data-text` names the content of an element, `data-label` its aria-label.
 */
export function translate() {
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-text]")) {
    const content = texts[element.dataset.text];
    if (content) element.innerHTML = content;
  }
  for (const element of document.querySelectorAll("[data-label]")) {
    const label = texts[element.dataset.label];
    if (label) element.ariaLabel = label;
  }
}
