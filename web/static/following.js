/** Following the end of a live log, and the count of lines that arrived below the window. */

const number = new Intl.NumberFormat("en");

/** @typedef {import("./rows.js").Rows} Rows */

export class Following {
  #lines = 0;
  #seen = 0; // lines of the log when the reader last saw its end

  /**
   * @param {Rows} rows
   * @param {HTMLButtonElement} button switches following on and off
   * @param {HTMLButtonElement} below shows how many new lines are below
   */
  constructor(rows, button, below) {
    this.rows = rows;
    this.button = button;
    this.below = below;
    button.addEventListener("click", () => this.toggle());
    below.addEventListener("click", () => {
      if (this.button.hidden) rows.scrollToEnd();
      else this.set(true);
      this.#sawEnd();
      rows.scroller.focus({ preventScroll: true });
    });
    document.addEventListener("selectionchange", () => {
      const selection = getSelection();
      const isSelecting =
        selection?.isCollapsed === false && rows.layer.contains(selection.anchorNode);
      if (isSelecting && rows.pinned) this.set(false);
    });
  }

  /** Whether the log may grow. */
  set live(/** @type {boolean} */ live) {
    this.button.hidden = !live;
  }

  toggle() {
    if (!this.button.hidden) this.set(!this.rows.pinned);
  }

  /** @param {boolean} on */
  set(on) {
    this.rows.pinned = on;
    this.button.setAttribute("aria-pressed", String(on));
    if (!on) return;
    this.rows.scrollToEnd();
    this.#sawEnd();
  }

  /**
   * The reader moved the window: up stops following, down to the end starts it.
   * @param {number} by
   */
  moved(by) {
    if (by < 0 && this.rows.pinned) this.set(false);
    if (by > 0 && this.rows.atEnd) {
      this.#sawEnd();
      if (!this.button.hidden && !this.rows.pinned) this.set(true);
    }
  }

  /** @param {number} lines of the log */
  grew(lines) {
    this.#lines = lines;
    if (this.rows.pinned) this.#sawEnd();
    else this.#show();
  }

  /** @param {number} lines of the log that was opened or replaced */
  reset(lines) {
    this.#lines = lines;
    this.#sawEnd();
  }

  #sawEnd() {
    this.#seen = this.#lines;
    this.#show();
  }

  #show() {
    const count = this.#lines - this.#seen;
    this.below.hidden = count <= 0;
    this.below.textContent = `${number.format(count)} new ${count === 1 ? "line" : "lines"}`;
  }
}
