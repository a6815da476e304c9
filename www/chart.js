/** The picture of a stream: its events by time and size, and the state of its connection. */
import { calm } from "./dom.js";

const COLUMNS = 600;

/** What a column of the picture has. `state` is the readyState; `size` that of the largest event. */
const column = (state) => ({ state, count: 0, size: 0, comments: 0, ends: 0 });

export class Chart {
  constructor(canvas) {
    this.canvas = canvas;
    this.begin();
    this.stop();
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** @param {number} width the time from edge to edge, in milliseconds */
  begin(width = 20000) {
    this.step = width / COLUMNS;
    this.start = performance.now();
    /** The columns in view, the newest last, and how many have left it. */
    this.columns = [column(2)];
    this.gone = 0;
    this.tick(this.run = {});
  }

  stop() {
    this.now();
    this.run = null;
    this.draw();
  }

  /** The column of this moment. */
  now() {
    const { columns } = this, missing = Math.floor((performance.now() - this.start) / this.step) + 1 - this.gone - columns.length;
    const { state } = columns.at(-1);
    // A page that was hidden for an hour does not need each column of it.
    for (let at = Math.max(0, missing - COLUMNS); at < missing; at++) columns.push(column(state));
    this.gone += Math.max(0, missing - COLUMNS) + columns.splice(0, columns.length - COLUMNS).length;
    return columns.at(-1);
  }

  event(size) {
    const now = this.now();
    now.count++;
    now.size = Math.max(now.size, size);
  }

  comment() {
    this.now().comments++;
  }

  end() {
    this.now().ends++;
  }

  become(state) {
    this.now().state = state;
  }

  tick(run) {
    if (run !== this.run) return;
    this.draw();
    if (calm.matches) setTimeout(() => this.tick(run), 1000);
    else requestAnimationFrame(() => this.tick(run));
  }

  draw() {
    if (this.run) this.now();
    const { canvas, step, gone } = this, scale = devicePixelRatio, { clientWidth: width, clientHeight: height } = canvas;
    // A canvas that gets a size is empty.
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const style = getComputedStyle(canvas), pen = canvas.getContext("2d"), base = Math.round(height * 0.68), wide = width / COLUMNS;
    pen.scale(scale, scale);
    pen.font = `12px ${style.fontFamily}`;
    const names = ["event", "open", "wait", "cut", "rule", "muted"];
    const colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`)]));
    const fill = (name, ...box) => {
      pen.fillStyle = colours[name];
      pen.fillRect(...box);
    };

    // A line each second, or each few seconds, so that the numbers have room.
    const second = wide * 1000 / step, every = [1, 2, 5, 10, 20, 60, 120].find((seconds) => seconds * second > 56) ?? 300;
    for (let at = Math.ceil(gone * step / 1000 / every) * every; at * second - gone * wide < width; at += every) {
      const left = Math.round(at * second - gone * wide);
      fill("rule", left, 0, 1, height - 18);
      pen.fillStyle = colours.muted;
      pen.fillText(`${at} s`, left + 4, height - 4);
    }
    this.columns.forEach(({ state, count, size, comments, ends }, at) => {
      const left = Math.round(at * wide);
      // The line is broken while there is no connection.
      if (state !== 0 || (gone + at) % 6 < 3) fill(["wait", "open", "rule"][state], left, base - 1, Math.ceil(wide), 2);
      if (count > 0) {
        const tall = 14 + Math.min(1, Math.log2(size + 1) / 16) * (base - 26);
        fill("event", left, base - 2 - tall, 2, tall);
        // Below the line: how many events this column has.
        if (count > 1) fill("event", left, base + 2, 2, Math.min(24, count));
      }
      if (comments > 0) fill("muted", left - 1, base + 4, 3, 3);
      if (ends > 0) fill("cut", left - 1, 0, 2, base + 10);
    });
  }
}
