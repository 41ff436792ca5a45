/** The vertical positions of rows: all are equally high, except wrapped ones, which are measured. */

import { bisect } from "./folds.js";

/** @typedef {import("./folds.js").Folds} Folds */

const LINE_HEIGHT = 1.6; // of the font of rows

/** The height of a row, larger if the browser's minimum font size is. */
export const ROW_HEIGHT = globalThis.document?.getElementById?.("log") ? measured() : 20;

function measured() {
  const probe = document.createElement("div");
  probe.textContent = "0";
  Object.assign(probe.style, { position: "absolute", lineHeight: String(LINE_HEIGHT) });
  document.getElementById("log")?.append(probe);
  const height = Math.round(probe.offsetHeight);
  probe.remove();
  document.documentElement.style.setProperty("--row", `${height}px`);
  return height;
}

export class Heights {
  /** @type {Map<number, number>} by line: pixels beyond the usual height */
  #extra = new Map();
  /** @type {{row: number, extra: number, before: number}[]} in order; `before`: of earlier rows */
  #higher = [];
  #version = -1;

  /** @param {Folds} folds */
  constructor(folds) {
    this.folds = folds;
  }

  clear() {
    this.#extra.clear();
    this.#version = -1;
  }

  /**
   * @param {number} line
   * @param {number} height in pixels
   * @returns {boolean} whether it changed
   */
  set(line, height) {
    const extra = Math.max(height - ROW_HEIGHT, 0);
    if ((this.#extra.get(line) ?? 0) === extra) return false;
    if (extra) this.#extra.set(line, extra);
    else this.#extra.delete(line);
    this.#version = -1;
    return true;
  }

  /** The rows that are higher than usual. */
  get #rows() {
    if (this.#version === this.folds.version) return this.#higher;
    this.#version = this.folds.version;
    this.#higher = [];
    let before = 0;
    for (const [line, extra] of [...this.#extra].sort(([one], [other]) => one - other)) {
      if (this.folds.isHidden(line)) continue;
      this.#higher.push({ row: this.folds.rowOf(line), extra, before });
      before += extra;
    }
    return this.#higher;
  }

  /**
   * The pixels above a row.
   * @param {number} row
   */
  offsetOf(row) {
    const rows = this.#rows;
    const last = rows[bisect(rows, (higher) => higher.row >= row) - 1];
    return row * ROW_HEIGHT + (last ? last.before + last.extra : 0);
  }

  /**
   * The row at a position.
   * @param {number} top in pixels
   */
  rowAt(top) {
    const rows = this.#rows;
    const last = rows[bisect(rows, (higher) => higher.row * ROW_HEIGHT + higher.before > top) - 1];
    if (!last) return Math.floor(top / ROW_HEIGHT);
    const below = top - last.before - last.extra;
    return Math.max(Math.floor(below / ROW_HEIGHT), last.row);
  }
}
