/** Whether long lines are wrapped; the choice is remembered. */

/** @typedef {import("./rows.js").Rows} Rows */

const KEY = "logflume-wrap";
const PHONE = "(max-width: 760px)"; // where lines are wrapped by default

export class Wrap {
  /** @param {Rows} rows @param {HTMLButtonElement} button */
  constructor(rows, button) {
    this.rows = rows;
    this.button = button;
    button.addEventListener("click", () => this.toggle());
    try {
      const chosen = localStorage.getItem(KEY);
      this.#set(chosen ? chosen === "true" : matchMedia(PHONE).matches);
    } catch {
      // Without storage lines are not wrapped.
    }
  }

  toggle() {
    this.#set(!this.rows.wraps);
    try {
      localStorage.setItem(KEY, String(this.rows.wraps));
    } catch {
      // Without storage the choice applies to this page only.
    }
  }

  /** @param {boolean} on */
  #set(on) {
    this.rows.wrap(on);
    this.button.setAttribute("aria-pressed", String(on));
  }
}
