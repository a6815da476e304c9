/** Recordings: event streams with a comment before each block, such as `: +250 ms`. The server plays them, too. */
import { Parser } from "./parser.js";

/** The pause before a block that names none, as the server has it. */
const PAUSE_MS = 50;

/** @param {{ at: number, type: string, id: string, data: string }[]} rows @param {(at: number) => string} [before] a block */
export const toStream = (rows, before = () => "") => rows.map(({ type, id, data }, at) => {
  const fields = [...(type === "message" ? [] : [`event: ${type}`]), ...(id === (rows[at - 1]?.id ?? "") ? [] : [`id: ${id}`])];
  return before(at) + [...fields, ...data.split("\n").map((line) => `data: ${line}`), "", ""].join("\n");
}).join("");

export const toRecording = (rows) =>
  toStream(rows, (at) => `: +${at === 0 ? 0 : Math.max(0, Math.round(rows[at].at - rows[at - 1].at))} ms\n`);

export const toJson = (rows) => JSON.stringify(rows.map(({ at, type, id, data }) => ({ time: new Date(at), type, id, data })), null, 2);

/** The blocks of a recording, each with the pause before it. */
export function readRecording(content) {
  const blocks = content.replace(/^\ufeff/, "").replace(/\r\n?/g, "\n").split(/\n\n+/).filter((lines) => lines.trim() !== "");
  return blocks.map((lines) => {
    const pauses = [...lines.matchAll(/^: \+(\d+) ms$/gm)].map((found) => Number(found[1]));
    return { delay: pauses.length > 0 ? pauses.reduce((sum, ms) => sum + ms) : PAUSE_MS, lines: `${lines}\n\n` };
  });
}

/**
 * Plays a recording. What is returned stops it.
 * @param {string} content @param {{ event: Function, comment?: Function, bytes?: Function, ended: () => void }} heard
 */
export function play(content, heard) {
  const parser = new Parser(heard), encoder = new TextEncoder(), blocks = readRecording(content);
  let timer = 0, at = 0, due = performance.now();
  const next = () => {
    // Browsers make short timers longer. Blocks that are due by now come together, so that the whole keeps its time.
    while (at < blocks.length && due + blocks[at].delay <= performance.now()) {
      due += blocks[at].delay;
      const bytes = encoder.encode(blocks[at++].lines);
      heard.bytes?.(bytes);
      parser.feed(bytes);
    }
    if (at === blocks.length) return heard.ended();
    timer = setTimeout(next, due + blocks[at].delay - performance.now());
  };
  next();
  return () => clearTimeout(timer);
}
