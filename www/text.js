/** The texts of the page. Each language has a file in text/ with the same keys. */

/** The tag (BCP 47) and the name of each language. A new one needs a line here and files in text/. */
export const LANGUAGES = { en: { tag: "en", own: "English" }, zh: { tag: "zh-Hans", own: "中文" } };

/** The language of the address, or that was chosen, or the first of the browser's that the page has. */
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
const texts = {};

/** Loads texts. @param {string} [subject] the start of a file's name, such as `check_` */
export const load = async (subject = "") => Object.assign(texts, (await import(`./text/${subject}${language}.js`)).default);
await load();

/** What stands at a path such as `wire.open`. */
const find = (path) => path.split(".").reduce((group, key) => group?.[key], texts);

/**
 * The text at a path. `{name}` in it stands for the value of that name.
 * @param {string} path @param {Record<string, string | number>} [values]
 */
export const text = (path, values = {}) => (find(path) ?? path).replace(/\{(\w+)\}/g, (all, name) => values[name] ?? all);

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
 * Puts the texts into the document. The English ones stand in index.html, and are seen without JavaScript, too. `data-text`
 * names what an element contains, or a list for its items or cells; `data-label` its aria-label; `data-hint` its placeholder.
 */
export function translate() {
  document.documentElement.lang = LANGUAGES[language].tag;
  if (language === "en") return;
  const each = (name, put) => {
    for (const element of document.querySelectorAll(`[data-${name}]`)) put(element, find(element.dataset[name]));
  };
  each("text", (element, found) => {
    if (typeof found === "string") element.innerHTML = found;
    else element.querySelectorAll("li, [scope=row], [scope=row] ~ td").forEach((part, at) => { part.innerHTML = found[at]; });
  });
  each("label", (element, found) => { element.ariaLabel = found; });
  each("hint", (element, found) => { element.placeholder = found; });
}
