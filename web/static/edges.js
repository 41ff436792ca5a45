/** Marks the rows whose text continues to the right of the window. */

export class Edges {
  #frame = 0;

  /**
   * @param {HTMLElement} scroller
   * @param {HTMLElement} layer contains the rows
   */
  constructor(scroller, layer) {
    this.scroller = scroller;
    this.layer = layer;
    scroller.addEventListener("scroll", () => this.update(), { passive: true });
  }

  /** Mark the rows in the next frame. */
  update() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      const edge = this.scroller.getBoundingClientRect().left + this.scroller.clientWidth;
      const rows = [...this.layer.children];
      // First all that is measured, then all that is changed: one layout.
      const beyond = rows.map((row) => {
        const text = row.querySelector(".text");
        const padding = 24; // of the text
        return text !== null && text.getBoundingClientRect().right - padding > edge + 1;
      });
      for (const [at, row] of rows.entries()) row.classList.toggle("beyond", beyond[at]);
    });
  }
}
