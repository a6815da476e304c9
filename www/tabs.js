/** A browser has six connections to a host for all tabs, so a hidden page lets its streams go when another one opens. */
const channel = new BroadcastChannel("newswire");
/** A busy page takes so long to answer. */
const ANSWER_MS = 500;
const readers = new Set();
const answers = [];

const connections = () => [...readers].reduce((sum, reader) => sum + reader.connections, 0);

channel.onmessage = ({ data }) => {
  if (data === "opened" && document.hidden) for (const reader of readers) reader.letGo();
  if (data === "connections?") channel.postMessage(connections());
  if (typeof data === "number") answers.push(data);
};

/** @param {{ letGo: () => void, takeUp: () => void, connections: number }} reader */
export const share = (reader) => readers.add(reader);

/** Tells the other pages that this one is looked at. */
function look() {
  if (document.hidden) return;
  channel.postMessage("opened");
  for (const reader of readers) reader.takeUp();
}
document.addEventListener("visibilitychange", look);
look();

/** How many connections all pages of this server have in this browser. @returns {Promise<number>} */
export async function countConnections() {
  answers.length = 0;
  channel.postMessage("connections?");
  await new Promise((resolve) => setTimeout(resolve, ANSWER_MS));
  return answers.reduce((sum, count) => sum + count, connections());
}
