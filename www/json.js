/** JSON laid out as a tree that can be folded. */
import { make, number } from "./dom.js";

/** How many members a level shows, and how many levels are open at first. */
const MOST_MEMBERS = 500, OPEN_LEVELS = 3;

/** The object or the array of a JSON text, else undefined. */
export function parseJson(content) {
  if (!/^\s*[[{]/.test(content)) return undefined;
  try {
    return JSON.parse(content);
  } catch {
    return undefined;
  }
}

export function tree(value, name = "", level = 0) {
  const label = name === "" ? [] : [make("span", { className: "name" }, `${name}: `)];
  if (value === null || typeof value !== "object") {
    return make("div", {}, ...label, make("span", { className: typeof value }, JSON.stringify(value)));
  }
  const members = Object.entries(value), isList = Array.isArray(value);
  const count = make("small", {}, isList ? `[${number(members.length)}]` : `{${number(members.length)}}`);
  const details = make("details", { open: level < OPEN_LEVELS }, make("summary", {}, ...label, count));
  // The members are made when they are first seen.
  const fill = () => {
    if (!details.open || details.children.length > 1) return;
    details.append(...members.slice(0, MOST_MEMBERS).map(([key, member]) => tree(member, key, level + 1)));
    if (members.length > MOST_MEMBERS) details.append(make("small", {}, `… ${number(members.length - MOST_MEMBERS)}`));
  };
  details.ontoggle = fill;
  fill();
  return details;
}
