/** Helpers of the module tests; the modules under test run here without a page. */

import { Outline } from "../../web/static/outline.js";

const encoder = new TextEncoder();

/** @param {string} text */
export const encode = (text) => encoder.encode(text);

/** The text in pieces of `size` characters. */
export function pieces(text, size) {
  const found = [];
  for (let at = 0; at < text.length; at += size) found.push(text.slice(at, at + size));
  return found;
}

/** An empty outline, to be extended by appending bytes. */
export function emptyOutline(blockBytes) {
  return new Outline({
    bytes: 0,
    lines: 0,
    block_bytes: blockBytes,
    newlines: [0],
    marks: [],
    marks_truncated: false,
    bare_lines: [],
    error_lines: [],
    cursor: "",
    ended: false,
  });
}

/**
 * Replace setTimeout, setInterval and Date.now by a clock that only the test moves. The one of
 * node:test is not used because its interface differs between Node.js 18 and 20.
 */
export function mockTime() {
  const { setTimeout, clearTimeout, setInterval, clearInterval } = globalThis;
  const now = Date.now;
  const timers = new Map();
  let time = now();
  let last = 0;
  const start = (repeat) => (callback, ms) => {
    timers.set(++last, { callback, at: time + ms, every: repeat && ms });
    return last;
  };
  const stop = (id) => timers.delete(id);
  Object.assign(globalThis, { setTimeout: start(false), setInterval: start(true) });
  Object.assign(globalThis, { clearTimeout: stop, clearInterval: stop });
  Date.now = () => time;
  return {
    /** Move the clock and run what is due, in its order. */
    tick(ms) {
      const end = time + ms;
      for (;;) {
        const [[id, timer] = []] = [...timers].sort(([, a], [, b]) => a.at - b.at);
        if (!timer || timer.at > end) break;
        time = timer.at;
        if (timer.every) timer.at += timer.every;
        else timers.delete(id);
        timer.callback();
      }
      time = end;
    },
    restore() {
      Object.assign(globalThis, { setTimeout, clearTimeout, setInterval, clearInterval });
      Date.now = now;
    },
  };
}
