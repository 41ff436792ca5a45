/**
 * Where the window is in a log.
 *
 * Browsers lay out at most some ten million pixels, so the scroll bar of a long log is shorter than
 * its rows: small steps move by pixels and long ones in proportion. Once scrolling rests, the bar
 * moves to the proportional position.
 */

const MAX_HEIGHT = 8_000_000;
const REST_MS = 150;

export class Position {
  /** Pixels of the log above the window. */
  top = 0;
  #lastScroll = 0;
  #spacerHeight = 0;
  /** @type {number | undefined} */
  #resting;

  /**
   * @param {HTMLElement} scroller
   * @param {HTMLElement} spacer gives the scroller its height
   * @param {() => number} height of all rows in pixels
   * @param {() => void} moved called when the bar has moved to another position
   */
  constructor(scroller, spacer, height, moved) {
    this.scroller = scroller;
    this.spacer = spacer;
    this.height = height;
    this.moved = moved;
    // Cached, because reading it forces a layout.
    this.windowHeight = scroller.clientHeight;
  }

  /** Adopt another size of the window. */
  resized() {
    this.windowHeight = this.scroller.clientHeight;
    this.#lastScroll = this.scroller.scrollTop; // a browser may have moved it
  }

  get #barHeight() {
    return Math.min(this.height(), MAX_HEIGHT);
  }

  get #maxTop() {
    return Math.max(this.height() - this.windowHeight, 0);
  }

  get isEnd() {
    return this.top >= this.#maxTop - 1;
  }

  /**
   * Follow the bar.
   * @returns {number} the pixels that it was moved by, down if positive; 0 if `settle` moved it
   */
  scrolled() {
    const now = this.scroller.scrollTop;
    const step = now - this.#lastScroll;
    if (Math.abs(step) < 1) return 0;
    const barMax = this.#barHeight - this.windowHeight;
    const scaled = this.height() > MAX_HEIGHT;
    if (scaled && Math.abs(step) > this.windowHeight * 2) this.top = (now / barMax) * this.#maxTop;
    else this.top += step;
    // At its ends the bar cannot move further, so it must be exact there.
    if (now <= 0 && Math.abs(step) > this.windowHeight * 2) this.top = 0;
    if (now >= barMax - 1 && (!scaled || this.top > this.#maxTop - this.windowHeight)) {
      this.top = this.#maxTop;
    }
    this.top = Math.min(Math.max(this.top, 0), this.#maxTop);
    this.#lastScroll = now;
    if (scaled && (now <= 0 || now >= barMax - 1)) this.settle();
    clearTimeout(this.#resting);
    this.#resting = setTimeout(() => this.settle(), REST_MS);
    return step;
  }

  /** Move the bar to the position of the rows. */
  settle() {
    const bar = this.#barHeight - this.windowHeight;
    const fraction = this.#maxTop ? this.top / this.#maxTop : 0;
    const at = this.height() > MAX_HEIGHT ? Math.round(fraction * bar) : this.top;
    if (Math.abs(this.#lastScroll - at) >= 1) {
      this.scroller.scrollTop = at;
      this.#lastScroll = this.scroller.scrollTop;
    }
    this.moved();
  }

  /** @param {number} top pixels of the log above the window */
  moveTo(top) {
    this.top = Math.min(Math.max(Math.round(top), 0), this.#maxTop);
    this.settle();
  }

  /** @param {boolean} toEnd move to the end, instead of only not beyond it */
  clamp(toEnd) {
    this.top = toEnd ? this.#maxTop : Math.min(this.top, this.#maxTop);
  }

  /** Adopt the height of all rows. */
  setHeight() {
    const height = this.#barHeight;
    if (this.#spacerHeight !== height) this.spacer.style.height = `${height}px`;
    // A browser moves the bar of a log that has shrunk, which is not the reader's movement.
    if (height < this.#spacerHeight) this.#lastScroll = this.scroller.scrollTop;
    this.#spacerHeight = height;
  }

  /**
   * Convert pixels of the log to pixels of the scroller.
   * @param {number} top
   */
  inScroller(top) {
    return top + this.#lastScroll - this.top;
  }
}
