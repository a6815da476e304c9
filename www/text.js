/** The texts of the page. Each language has a file in text/; what it lacks is English. */
import en from "./text/en.js";

/** The languages, each with its tag (BCP 47) and its own name. A new one needs a line here and a file in text/. */
export const LANGUAGES = { en: { tag: "en", own: "English" }, zh: { tag: "zh-Hans", own: "中文" } };

/** The language that the address names or that was chosen, else the first of the browser's languages that the page has. */
function preferred() {
  const wanted = navigator.languages.map((tag) => tag.split("-")[0]);
  try {
    wanted.unshift(localStorage.getItem("language"));
  } catch {
    // A browser may refuse storage to a page. The browser's own languages remain.
  }
  wanted.unshift(new URLSearchParams(location.search).get("language"));
  return wanted.find((name) => name in LANGUAGES) ?? "en";
}

export const language = preferred();
const texts = { ...en, ...(language === "en" ? {} : (await import(`./text/${language}.js`)).default) };

/** Loads the texts of a subject that has files of its own. @param {string} subject */
export const load = async (subject) => Object.assign(texts, (await import(`./text/${subject}_${language}.js`)).default);

/** Loads the page again in another language. @param {string} name */
export function choose(name) {
  const url = new URL(location.href);
  url.searchParams.delete("language");
  try {
    localStorage.setItem("language", name);
  } catch {
    // Without storage, the address of the page keeps the choice.
    url.searchParams.set("language", name);
  }
  if (url.href === location.href) location.reload();
  else location.replace(url);
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
 * without JavaScript, too: `data-text` names the content of an element, `data-label` its aria-label, `data-hint` its placeholder.
 */
export function translate() {
  document.documentElement.lang = LANGUAGES[language].tag;
  for (const element of document.querySelectorAll("[data-text]")) {
    const content = texts[element.dataset.text];
    if (content) element.innerHTML = content;
  }
  for (const element of document.querySelectorAll("[data-label]")) {
    const label = texts[element.dataset.label];
    if (label) element.ariaLabel = label;
  }
  for (const element of document.querySelectorAll("[data-hint]")) {
    element.placeholder = texts[element.dataset.hint] ?? element.placeholder;
  }
}
