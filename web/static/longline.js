/** A panel that shows one very long line, a piece at a time: laid out whole it would stop the page. */

import { parseLine, RESET } from "./ansi.js";
import { paintRuns } from "./paint.js";

const PIECE_BYTES = 32 * 1024;
// A sequence cut between two pieces is kept for the second; longer ones are broken anyway.
const LONGEST_ESCAPE = 256;

export class LongLine {
  /**
   * @param {HTMLDialogElement} dialog
   * @param {(from: number, to: number) => Promise<Uint8Array>} fetchRange
   * @param {(error: Error) => void} failed
   */
  constructor(dialog, fetchRange, failed) {
    this.dialog = dialog;
    this.fetchRange = fetchRange;
    this.failed = failed;
    this.body = dialog.querySelector("pre");
    this.more = dialog.querySelector(".more");
    this.more.addEventListener("click", () => this.#next());
  }

  /** Show the line (from 0) that lies at these bytes. */
  open(line, { begin, end }) {
    this.dialog.querySelector("h2").textContent = `Line ${line + 1}`;
    this.body.replaceChildren();
    this.at = begin;
    this.end = end;
    this.style = RESET;
    this.rest = "";
    this.decoder = new TextDecoder("utf-8");
    this.dialog.showModal();
    return this.#next();
  }

  async #next() {
    const until = Math.min(this.at + PIECE_BYTES, this.end);
    this.more.disabled = true;
    try {
      const bytes = await this.fetchRange(this.at, until);
      this.at = until;
      this.#add(this.rest + this.decoder.decode(bytes, { stream: until < this.end }));
    } catch (error) {
      this.failed(error);
    }
    const left = Math.ceil((this.end - this.at) / 1024);
    this.more.disabled = false;
    this.more.hidden = left === 0;
    this.more.textContent = `show more (${left} KiB left)`;
  }

  #add(text) {
    const escape = text.lastIndexOf("\x1b");
    const cut = this.at < this.end && escape >= 0 && text.length - escape < LONGEST_ESCAPE;
    this.rest = cut ? text.slice(escape) : "";
    const piece = document.createElement("span");
    // What was written over by \r is to be read here too: each state on a line of its own.
    for (const state of (cut ? text.slice(0, escape) : text).split(/\r+/)) {
      const { runs, style } = parseLine(state, this.style);
      this.style = style;
      if (piece.childNodes.length) piece.append("\n");
      paintRuns(piece, runs);
    }
    this.body.append(piece);
  }
}
