/** Search of the whole log, done by the server, and navigation between the matches. */

import { callJson } from "./api.js";
import { inputOf, within } from "./dom.js";

const TYPING_MS = 250;
const LIVE_MS = 1500;
const MAX_LINES = 10_000; // as the server returns
const MAX_LINE = 1_000_000_000;
const MAX_HIGHLIGHTS = 500;
const MAX_HIGHLIGHTS_PER_LINE = 50;

const number = new Intl.NumberFormat("en");

/**
 * @typedef {object} SearchBody the response of `/logs/{id}/search`
 * @property {number} count
 * @property {number[]} lines
 * @property {number} first
 * @property {number} next_byte
 * @property {number} next_line
 */
/**
 * @typedef {object} Model the log that is searched
 * @property {string} jobId
 * @property {HTMLElement} layer contains the rows
 * @property {() => number} topLine the first line in the window
 * @property {(line: number) => void} show
 * @property {(range: Range) => void} reveal scrolls to a match in a row
 * @property {(line: number) => boolean} showMore shows more of a row; false if it cannot
 * @property {(line: number, find: (body: Element) => Range[]) => void} showWhole
 * @property {() => void} changed called when other lines match
 * @property {(error: unknown) => void} failed
 */

export class Search {
  query = "";
  /** @type {number[]} matching lines, all or those around one */
  lines = [];
  first = 0; // the index of the first of them in all
  /** @type {Set<number>} */
  found = new Set();
  count = 0;
  /** @type {number | null} the index of the current match in `lines` */
  at = null;
  #next = { byte: 0, line: 0 }; // where the search of new output starts
  /** @type {number | null} the line of the match to scroll to once it is drawn */
  #reveal = null;
  #timer = 0;
  #request = new AbortController();

  /**
   * @param {HTMLFormElement} form
   * @param {Model} model
   */
  constructor(form, model) {
    this.model = model;
    this.input = inputOf(form, "q");
    this.output = within(form, "output", HTMLElement);
    this.caseButton = within(form, "#case", HTMLButtonElement);
    form.addEventListener("submit", (event) => event.preventDefault());
    this.input.addEventListener("input", () => this.#soon(TYPING_MS, true));
    this.input.addEventListener("keydown", (event) => this.#key(event));
    within(form, "#next", HTMLElement).addEventListener("click", () => this.step(1));
    within(form, "#previous", HTMLElement).addEventListener("click", () => this.step(-1));
    this.caseButton.addEventListener("click", () => {
      this.caseButton.setAttribute("aria-pressed", String(!this.matchesCase));
      this.#soon(0, true);
    });
  }

  get matchesCase() {
    return this.caseButton.getAttribute("aria-pressed") === "true";
  }

  /** The line of the current match. */
  get line() {
    return this.at === null ? null : this.lines[this.at];
  }

  clear() {
    this.query = "";
    this.lines = [];
    this.first = 0;
    this.found = new Set();
    this.count = 0;
    this.at = null;
    this.#reveal = null;
    this.output.textContent = "";
  }

  focus() {
    this.input.focus();
    this.input.select();
  }

  /** Update the count after new lines arrived. */
  grown() {
    if (!this.query || this.#timer) return;
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      this.#searchNew();
    }, LIVE_MS);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.key === "Enter") {
      event.preventDefault();
      if (this.#timer || this.input.value !== this.query) this.#soon(0, true);
      else this.step(event.shiftKey ? -1 : 1);
    } else if (event.key === "Escape") {
      this.input.value = "";
      this.#soon(0, true);
      this.input.blur();
    }
  }

  /** @param {number} milliseconds @param {boolean} jump */
  #soon(milliseconds, jump) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      this.run(jump);
    }, milliseconds);
  }

  /**
   * Search for the text in the input.
   * @param {boolean} jump go to the nearest match
   */
  async run(jump) {
    this.#request.abort();
    const query = this.input.value;
    const before = this.line;
    if (!query) {
      this.clear();
      this.model.changed();
      return;
    }
    this.#request = new AbortController();
    const { signal } = this.#request;
    if (jump) this.output.textContent = "…";
    const top = this.model.topLine();
    const body = await this.#fetch(query, { near: String(jump ? top : (before ?? top)) }, signal);
    if (!body) return;
    this.query = query;
    this.#take(body);
    const at = jump || before === null ? -1 : this.lines.indexOf(before);
    this.at = at < 0 ? null : at;
    if (jump && this.lines.length) this.#goTo(this.#nearest(top));
    else this.#showCount();
    this.model.changed();
  }

  /**
   * @param {string} query
   * @param {Record<string, string>} params
   * @param {AbortSignal} signal
   * @returns {Promise<SearchBody | null>} null if it failed or another search has started
   */
  async #fetch(query, params, signal) {
    const all = this.matchesCase ? { ...params, q: query, case: "1" } : { ...params, q: query };
    try {
      const path = `/logs/${this.model.jobId}/search`;
      const body = await callJson(path, { params: all, signal, seconds: 120 });
      return signal.aborted ? null : body;
    } catch (error) {
      if (signal.aborted) return null;
      this.output.textContent = "failed";
      this.model.failed(error);
      return null;
    }
  }

  /** @param {SearchBody} body */
  #take(body) {
    this.lines = body.lines;
    this.first = body.first;
    this.count = body.count;
    this.found = new Set(body.lines);
    this.#next = { byte: body.next_byte, line: body.next_line };
  }

  /** Search the output that is new since the last search. */
  async #searchNew() {
    const { signal } = this.#request;
    const { byte, line } = this.#next;
    const params = { from_byte: String(byte), from_line: String(line), near: String(line) };
    const body = await this.#fetch(this.query, params, signal);
    if (!body) return;
    const hasEnd = this.first + this.lines.length === this.count;
    if (hasEnd && this.lines.at(-1) === line) {
      // The last line was incomplete; it is found again.
      this.lines.pop();
      this.count--;
    }
    if (hasEnd && this.lines.length < MAX_LINES) this.lines.push(...body.lines);
    this.count += body.count;
    this.found = new Set(this.lines);
    this.#next = { byte: body.next_byte, line: body.next_line };
    this.#showCount();
    this.model.changed();
  }

  /**
   * The first match at or below a line, else the last one above.
   * @param {number} line
   */
  #nearest(line) {
    const after = this.lines.findIndex((other) => other >= line);
    return after < 0 ? this.lines.length - 1 : after;
  }

  /**
   * Go to the next match (1) or the previous one (-1), wrapping around.
   * @param {1 | -1} by
   */
  async step(by) {
    if (!this.lines.length) return;
    const nearest = this.#nearest(this.model.topLine());
    const from = this.first + (this.at ?? (by > 0 ? nearest - 1 : nearest));
    const to = (from + by + this.count) % this.count;
    if (to < this.first || to >= this.first + this.lines.length) {
      const ends = { first: 0, last: MAX_LINE };
      const near =
        to === 0 ? ends.first : to === this.count - 1 ? ends.last : this.lines.at(by > 0 ? -1 : 0);
      this.#request.abort();
      this.#request = new AbortController();
      const body = await this.#fetch(this.query, { near: String(near) }, this.#request.signal);
      if (!body) return;
      this.#take(body);
    }
    this.#goTo(Math.min(Math.max(to - this.first, 0), this.lines.length - 1));
    this.model.changed();
  }

  /** @param {number} at */
  #goTo(at) {
    this.at = at;
    this.#reveal = this.lines[at];
    this.model.show(this.lines[at]);
    this.#showCount();
  }

  #showCount() {
    const of = number.format(this.count);
    if (!this.count) this.output.textContent = "no match";
    else if (this.at === null)
      this.output.textContent = this.count === 1 ? "1 match" : `${of} matches`;
    else this.output.textContent = `${number.format(this.first + this.at + 1)} of ${of}`;
  }

  /** Highlight the matches in the rendered rows, without changing their elements. */
  highlight() {
    if (!("highlights" in CSS)) return;
    CSS.highlights.delete("found");
    if (!this.query) return;
    /** @type {Range[]} */
    const ranges = [];
    for (const text of this.model.layer.querySelectorAll(".row.found .text")) {
      if (ranges.length < MAX_HIGHLIGHTS) ranges.push(...this.#rangesIn(text));
    }
    CSS.highlights.set("found", new Highlight(...ranges));
    this.#showMatch();
  }

  /** @param {Element} element */
  #rangesIn(element) {
    /** @param {string} text */
    const fold = (text) => (this.matchesCase ? text : text.toLowerCase());
    return rangesIn(element, fold(this.query), fold);
  }

  /** Scroll to the current match once its row is drawn. */
  #showMatch() {
    const line = this.#reveal;
    const row = this.model.layer.querySelector(`.row[data-line="${line}"]:not(.waiting)`);
    if (line === null || !row) return;
    const [range] = this.#rangesIn(within(row, ".text", HTMLElement));
    if (!range && this.model.showMore(line)) return; // the row is drawn again
    this.#reveal = null;
    if (range) this.model.reveal(range);
    else this.model.showWhole(line, (body) => this.#rangesIn(body));
  }
}

/**
 * The ranges of the query in the text of an element.
 * @param {Element} element
 * @param {string} query folded
 * @param {(text: string) => string} fold
 */
function rangesIn(element, query, fold) {
  const nodes = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  /** @type {[start: number, node: Node][]} */
  const starts = [];
  let text = "";
  while (nodes.nextNode()) {
    starts.push([text.length, nodes.currentNode]);
    text += nodes.currentNode.nodeValue;
  }
  const folded = fold(text);
  if (folded.length !== text.length) return []; // lower case changes the length of some letters
  /** @param {number} at @returns {[Node, number]} */
  const place = (at) => {
    const [begin, node] = starts.findLast(([start]) => start <= at) ?? [0, element];
    return [node, at - begin];
  };
  /** @type {Range[]} */
  const ranges = [];
  for (let at = folded.indexOf(query); at >= 0; at = folded.indexOf(query, at + query.length)) {
    const range = document.createRange();
    range.setStart(...place(at));
    range.setEnd(...place(at + query.length));
    ranges.push(range);
    if (ranges.length >= MAX_HIGHLIGHTS_PER_LINE) break;
  }
  return ranges;
}
