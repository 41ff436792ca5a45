/** Search of the whole log, done by the server, and navigation between the matches. */

import { callJson } from "./api.js";
import { inputOf, within } from "./dom.js";

const TYPING_MS = 250;
const LIVE_MS = 1500;
const MAX_HIGHLIGHTS = 500;
const MAX_HIGHLIGHTS_PER_LINE = 50;

const number = new Intl.NumberFormat("en");

/**
 * @typedef {object} Model the log that is searched
 * @property {string} jobId
 * @property {HTMLElement} layer contains the rows
 * @property {() => number} topLine the first line in the window
 * @property {(line: number) => void} show
 * @property {() => void} changed called when other lines match
 * @property {(error: unknown) => void} failed
 */

export class Search {
  query = "";
  /** @type {number[]} the matching lines that can be visited */
  lines = [];
  /** @type {Set<number>} */
  found = new Set();
  count = 0;
  /** @type {number | null} the index of the current match */
  at = null;
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
    this.found = new Set();
    this.count = 0;
    this.at = null;
    this.output.textContent = "";
  }

  focus() {
    this.input.focus();
    this.input.select();
  }

  /** Update the count after new lines arrived. */
  grown() {
    if (this.query && !this.#timer) this.#soon(LIVE_MS, false);
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
    try {
      /** @type {Record<string, string>} */
      const params = this.matchesCase ? { q: query, case: "1" } : { q: query };
      const body = await callJson(`/logs/${this.model.jobId}/search`, { params, signal });
      if (signal.aborted) return;
      this.query = query;
      this.lines = body.lines;
      this.found = new Set(body.lines);
      this.count = body.count;
    } catch (error) {
      if (signal.aborted) return;
      this.output.textContent = "failed";
      this.model.failed(error);
      return;
    }
    const at = jump || before === null ? -1 : this.lines.indexOf(before);
    this.at = at < 0 ? null : at;
    if (jump && this.lines.length) this.#goTo(this.#nearest());
    else this.#showCount();
    this.model.changed();
  }

  /** The first match in or below the window, else the last one above. */
  #nearest() {
    const after = this.lines.findIndex((line) => line >= this.model.topLine());
    return after < 0 ? this.lines.length - 1 : after;
  }

  /**
   * Go to the next match (1) or the previous one (-1), wrapping around.
   * @param {1 | -1} by
   */
  step(by) {
    if (!this.lines.length) return;
    const from = this.at ?? (by > 0 ? this.#nearest() - 1 : this.#nearest());
    this.#goTo((from + by + this.lines.length) % this.lines.length);
    this.model.changed();
  }

  /** @param {number} at */
  #goTo(at) {
    this.at = at;
    this.model.show(this.lines[at]);
    this.#showCount();
  }

  #showCount() {
    const of = number.format(this.count);
    if (!this.count) this.output.textContent = "no match";
    else if (this.at === null)
      this.output.textContent = this.count === 1 ? "1 match" : `${of} matches`;
    else this.output.textContent = `${number.format(this.at + 1)} of ${of}`;
    const more = this.count > this.lines.length;
    this.output.title = more
      ? `only the first ${number.format(this.lines.length)} can be visited`
      : "";
  }

  /** Highlight the matches in the rendered rows, without changing their elements. */
  highlight() {
    if (!("highlights" in CSS)) return;
    CSS.highlights.delete("found");
    if (!this.query) return;
    /** @param {string} text */
    const fold = (text) => (this.matchesCase ? text : text.toLowerCase());
    /** @type {Range[]} */
    const ranges = [];
    for (const text of this.model.layer.querySelectorAll(".row.found .text")) {
      if (ranges.length < MAX_HIGHLIGHTS) ranges.push(...rangesIn(text, fold(this.query), fold));
    }
    CSS.highlights.set("found", new Highlight(...ranges));
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
