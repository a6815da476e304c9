/** The picture of a stream: its events by time and size, and the state of its connection. */
import { calm } from "./dom.js";

export class Chart {
  constructor(canvas) {
    this.canvas = canvas;
    this.columns = 600;
    this.begin();
    this.stop();
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** @param {number} width the time from edge to edge, in milliseconds */
  begin(width = 20000) {
    this.step = width / this.columns;
    this.start = performance.now();
    this.now = 0;
    this.state = 2;
    const columns = () => new Float32Array(this.columns);
    Object.assign(this, { states: columns().fill(2), counts: columns(), sizes: columns(), comments: columns(), ends: columns() });
    this.tick(this.run = {});
  }

  stop() {
    this.advance();
    this.run = null;
    this.draw();
  }

  advance() {
    const now = Math.floor((performance.now() - this.start) / this.step);
    for (let at = Math.max(this.now + 1, now - this.columns + 1); at <= now; at++) {
      const column = at % this.columns;
      for (const values of [this.counts, this.sizes, this.comments, this.ends]) values[column] = 0;
      this.states[column] = this.state;
    }
    this.now = now;
    return now % this.columns;
  }

  event(size) {
    const column = this.advance();
    this.counts[column]++;
    this.sizes[column] = Math.max(this.sizes[column], size);
  }

  comment() {
    this.comments[this.advance()]++;
  }

  end() {
    this.ends[this.advance()]++;
  }

  become(state) {
    this.states[this.advance()] = this.state = state;
  }

  tick(run) {
    if (run !== this.run) return;
    this.draw();
    if (calm.matches) setTimeout(() => this.tick(run), 1000);
    else requestAnimationFrame(() => this.tick(run));
  }

  draw() {
    if (this.run) this.advance();
    const { canvas, columns, step, now } = this;
    const scale = devicePixelRatio, width = canvas.clientWidth, height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    const style = getComputedStyle(canvas);
    const [event, open, wait, ended, rule, muted] = ["event", "open", "wait", "cut", "rule", "muted"]
      .map((name) => style.getPropertyValue(`--${name}`));
    const pen = canvas.getContext("2d"), base = Math.round(height * 0.68);
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    const first = Math.max(0, now - columns + 1), x = (at) => (at - first) * width / columns;

    // A line each second, or each few seconds, so that the numbers have room.
    const every = [1, 2, 5, 10, 20, 60, 120].find((s) => s * 1000 / step * width / columns > 56) ?? 300;
    pen.font = `12px ${style.fontFamily}`;
    for (let second = Math.ceil(first * step / 1000 / every) * every; x(second * 1000 / step) < width; second += every) {
      const at = Math.round(x(second * 1000 / step)) + 0.5;
      pen.fillStyle = rule;
      pen.fillRect(at, 0, 1, height - 18);
      pen.fillStyle = muted;
      pen.fillText(`${second} s`, at + 4, height - 4);
    }
    for (let at = first; at <= now; at++) {
      const column = at % columns, left = Math.round(x(at)), count = this.counts[column];
      pen.fillStyle = [wait, open, rule][this.states[column]];
      if (this.states[column] !== 0 || at % 6 < 3) pen.fillRect(left, base - 1, Math.ceil(width / columns), 2);
      if (count > 0) {
        const tall = 14 + Math.min(1, Math.log2(this.sizes[column] + 1) / 16) * (base - 26);
        pen.fillStyle = event;
        pen.fillRect(left, base - 2 - tall, 2, tall);
        // Below the line: how many events this column has.
        if (count > 1) pen.fillRect(left, base + 2, 2, Math.min(24, count));
      }
      if (this.comments[column] > 0) {
        pen.fillStyle = muted;
        pen.fillRect(left - 1, base + 4, 3, 3);
      }
      if (this.ends[column] > 0) {
        pen.fillStyle = ended;
        pen.fillRect(left - 1, 0, 2, base + 10);
      }
    }
  }
}
