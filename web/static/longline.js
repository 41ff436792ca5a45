/** A panel that shows a very long line in pieces: laid out at once, it would block the page. */

import { parseLine, RESET } from "./ansi.js";
import { within } from "./dom.js";
import { linkRuns } from "./links.js";
import { paintRuns } from "./paint.js";

const PIECE_BYTES = 32 * 1024;
// A sequence cut between two pieces moves to the second; longer ones are broken anyway.
const MAX_SEQUENCE = 256;

export class LongLine {
  /**
   * @param {HTMLDialogElement} dialog
   * @param {(from: number, to: number) => Promise<Uint8Array>} fetchRange
   * @param {(error: unknown) => void} failed
   */
  constructor(dialog, fetchRange, failed) {
    this.dialog = dialog;
    this.fetchRange = fetchRange;
    this.failed = failed;
    this.title = within(dialog, "h2", HTMLElement);
    this.body = within(dialog, "pre", HTMLElement);
    this.more = within(dialog, ".more", HTMLButtonElement);
    this.more.addEventListener("click", () => this.#next());
    this.at = 0;
    this.end = 0;
    this.style = RESET;
    this.rest = "";
    this.decoder = new TextDecoder("utf-8");
  }

  /**
   * Show a line, or the text in it that `find` finds; without such text nothing.
   * @param {number} line from 0
   * @param {import("./lines.js").ByteRange} place
   * @param {(body: Element) => Range[]} [find]
   */
  async open(line, { begin, end }, find) {
    this.title.textContent = `Line ${line + 1}`;
    this.body.replaceChildren();
    this.at = begin;
    this.end = end;
    this.style = RESET;
    this.rest = "";
    this.decoder = new TextDecoder("utf-8");
    if (!find) this.dialog.showModal();
    /** @type {Range[]} */
    let found = [];
    do {
      if (!(await this.#next())) return;
      found = find?.(this.body) ?? [];
    } while (find && !found.length && this.at < end);
    if (!found.length) return;
    this.dialog.showModal();
    CSS.highlights?.set("whole", new Highlight(...found));
    const { top } = found[0].getBoundingClientRect();
    this.dialog.scrollTop += top - this.dialog.getBoundingClientRect().top - 100;
  }

  /** Add the next piece; returns whether it was fetched. */
  async #next() {
    let isFetched = false;
    const until = Math.min(this.at + PIECE_BYTES, this.end);
    this.more.disabled = true;
    try {
      const bytes = await this.fetchRange(this.at, until);
      this.at = until;
      isFetched = true;
      this.#add(this.rest + this.decoder.decode(bytes, { stream: until < this.end }));
    } catch (error) {
      this.failed(error);
    }
    const left = Math.ceil((this.end - this.at) / 1024);
    this.more.disabled = false;
    this.more.hidden = left === 0;
    this.more.textContent = `show more (${left} KiB left)`;
    return isFetched;
  }

  /** @param {string} text */
  #add(text) {
    const start = text.lastIndexOf("\x1b");
    const isCut = this.at < this.end && start >= 0 && text.length - start < MAX_SEQUENCE;
    this.rest = isCut ? text.slice(start) : "";
    const piece = document.createElement("span");
    // Text overwritten by \r is readable here: each state gets its own line.
    for (const state of (isCut ? text.slice(0, start) : text).split(/\r+/)) {
      const { runs, style } = parseLine(state, this.style);
      this.style = style;
      if (piece.childNodes.length) piece.append("\n");
      paintRuns(piece, linkRuns(runs, isCut || this.at < this.end));
    }
    this.body.append(piece);
  }
}
