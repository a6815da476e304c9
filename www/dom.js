import { language, text } from "./text.js";

export const $ = (id) => document.getElementById(id);

/** A new element. @param {string} tag @param {object} [properties] @param {...(Node | string)} children */
export function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Sets a text when it changes: each change costs the browser work. */
export function set(element, content) {
  if (element.textContent !== content) element.textContent = content;
}

/** Sets a text so that no line ends inside of an id such as 1795717595603-0. */
export function setWithIds(element, content) {
  if (element.textContent === content) return;
  const parts = content.split(/(\d+-\d+|\(\d\))/);
  element.replaceChildren(...parts.map((part, at) => at % 2 ? make("span", { className: "number" }, part) : part));
}

/** An address on this server. The page may be served below a path. @param {string} path */
export const here = (path) => new URL(path, document.baseURI).href;

const said = new Map();

/** Tells a screen reader, once a second, the latest text of each subject. */
export function say(subject, content) {
  if (said.size === 0) {
    setTimeout(() => {
      $("said").textContent = [...said.values()].join(". ");
      said.clear();
    }, 1000);
  }
  said.set(subject, content);
}

/** A button with aria-disabled keeps the focus, unlike one with disabled. */
export const enable = (button, isEnabled) => button.setAttribute("aria-disabled", !isEnabled);

export const press = (button, action) => {
  button.onclick = () => button.getAttribute("aria-disabled") === "true" || action();
};

export const calm = matchMedia("(prefers-reduced-motion: reduce)");

export const number = new Intl.NumberFormat(language).format;

export async function copy(content) {
  try {
    await navigator.clipboard.writeText(content);
  } catch {
    // Only pages from https or from loopback may use the clipboard.
    const area = make("textarea", { value: content, className: "unseen" });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  say("copy", text("copied"));
}

export function save(name, content) {
  const url = URL.createObjectURL(new Blob([content]));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

function copyButton(label, content) {
  const button = make("button", { type: "button", className: "small", ariaLabel: label }, text("copy"));
  button.onclick = async () => {
    await copy(content());
    button.textContent = text("copied");
    setTimeout(() => { button.textContent = text("copy"); }, 1500);
  };
  return button;
}

/** Puts the address of this server into the lines for a terminal, and a button beside each. */
export function fillLines(root = document) {
  for (const line of root.querySelectorAll(".line")) {
    const code = line.querySelector("code");
    code.textContent = code.textContent.replaceAll("http://127.0.0.1:8080/", here("."))
      .replace("127.0.0.1 8080", `${location.hostname} ${location.port || 80}`)
      .replace(/GET \//, `GET ${new URL(here(".")).pathname}`);
    // telnet knows no TLS.
    line.hidden = location.protocol === "https:" && code.textContent.includes("| telnet");
    line.append(copyButton(text("copyLine", { name: line.firstElementChild.textContent }), () => code.textContent));
  }
}
