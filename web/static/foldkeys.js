/** Opens, closes and visits folds. */

/** @typedef {import("./folds.js").Folds} Folds */
/** @typedef {import("./following.js").Following} Following */
/** @typedef {import("./rows.js").Rows} Rows */

export class FoldKeys {
  /**
   * @param {Folds} folds
   * @param {Rows} rows
   * @param {Following} following
   * @param {HTMLElement} button opens or closes all folds
   */
  constructor(folds, rows, following, button) {
    this.folds = folds;
    this.rows = rows;
    this.following = following;
    this.button = button;
    button.addEventListener("click", () => this.setAll(!this.#label()));
  }

  /** @param {number} line @param {boolean} closed */
  set(line, closed) {
    const anchor = this.rows.anchor();
    this.folds.set(line, closed);
    this.following.set(false);
    this.rows.restore(anchor);
  }

  /** @param {boolean} closed */
  setAll(closed) {
    const anchor = this.rows.anchor();
    this.folds.setAll(closed);
    this.rows.restore(anchor);
    this.#label();
  }

  /** Label the button with what it does; returns whether it opens all folds. */
  #label() {
    const opens = [...this.folds.headers.values()].some((fold) => fold.closed);
    this.button.setAttribute("aria-label", opens ? "Open all folds" : "Close all folds");
    return opens;
  }

  /**
   * Focus the next (1) or previous (-1) fold from the focused one, or from the top of the window.
   * @param {1 | -1} by
   */
  step(by) {
    const focused = document.activeElement?.closest(".row");
    const from = focused instanceof HTMLElement ? focused.dataset.line : this.rows.anchor().line;
    const starts = [...this.folds.headers.keys()].filter((line) => !this.folds.isHidden(line));
    starts.sort((a, b) => by * (a - b));
    const line = starts.find((start) => by * (start - Number(from)) > 0);
    if (line === undefined) return;
    this.following.set(false);
    this.rows.showLine(line);
    requestAnimationFrame(() => requestAnimationFrame(() => this.rows.focusLine(line)));
  }
}
