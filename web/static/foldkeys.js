/** Opens and closes folds, and visits steps. */

/** @typedef {import("./folds.js").Folds} Folds */
/** @typedef {import("./following.js").Following} Following */
/** @typedef {import("./rows.js").Rows} Rows */

export class FoldKeys {
  /** The step visited last, and the line at the top of the window then. */
  #last = { line: 0, top: -1 };

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
   * Visit the next (1) or previous (-1) step from the focused one, or from the top of the window.
   * @param {1 | -1} by
   */
  step(by) {
    const focused = document.activeElement?.closest(".row");
    const { line: top } = this.rows.anchor();
    const unfocused = this.#last.top === top ? this.#last.line : top;
    const current = focused instanceof HTMLElement ? Number(focused.dataset.line) : unfocused;
    const from = this.rows.focusing ?? current;
    const starts = this.folds.steps.map(({ line }) => line);
    const line = (by > 0 ? starts : starts.reverse()).find(
      (start) => by * (start - from) > 0 && !this.folds.isHidden(start),
    );
    if (line === undefined) return;
    this.following.set(false);
    this.rows.focusing = line;
    this.rows.showLine(line);
    this.#last = { line, top: this.rows.anchor().line };
  }
}
