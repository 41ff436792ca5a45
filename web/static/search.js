/** Search over the whole log, which the server does, and the way from match to match. */

import { callJson } from "./api.js";

const TYPING_MS = 250;
const LIVE_MS = 1500;
const MAX_MARKED = 500;

const number = new Intl.NumberFormat("en");

export class Search {
  /**
   * @param {HTMLFormElement} form
   * @param {{jobId: string, layer: HTMLElement, topLine: () => number,
   *   show: (line: number) => void, changed: () => void, failed: (error: Error) => void}} model
   */
  constructor(form, model) {
    this.model = model;
    this.input = form.elements.namedItem("q");
    this.output = form.querySelector("output");
    this.caseButton = form.querySelector("#case");
    this.clear();
    form.addEventListener("submit", (event) => event.preventDefault());
    this.input.addEventListener("input", () => this.#soon(TYPING_MS, true));
    this.input.addEventListener("keydown", (event) => this.#key(event));
    form.querySelector("#next").addEventListener("click", () => this.step(1));
    form.querySelector("#previous").addEventListener("click", () => this.step(-1));
    this.caseButton.addEventListener("click", () => {
      const pressed = this.caseButton.getAttribute("aria-pressed") === "true";
      this.caseButton.setAttribute("aria-pressed", String(!pressed));
      this.#soon(0, true);
    });
  }

  get matchesCase() {
    return this.caseButton.getAttribute("aria-pressed") === "true";
  }

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

  /** More lines came: count again, without moving. */
  grown() {
    if (this.query && !this.timer) this.#soon(LIVE_MS, false);
  }

  #key(event) {
    if (event.key === "Enter") {
      event.preventDefault();
      if (this.timer || this.input.value !== this.query) this.#soon(0, true);
      else this.step(event.shiftKey ? -1 : 1);
    } else if (event.key === "Escape") {
      this.input.value = "";
      this.#soon(0, true);
      this.input.blur();
    }
  }

  #soon(wait, jump) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.timer = 0;
      this.run(jump);
    }, wait);
  }

  /** Search for what is typed. `jump`: go to the nearest match. */
  async run(jump) {
    this.request?.abort();
    const query = this.input.value;
    const before = this.line;
    if (!query) {
      this.clear();
      this.model.changed();
      return;
    }
    this.request = new AbortController();
    const { signal } = this.request;
    if (jump) this.output.textContent = "…";
    try {
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
    const kept = jump ? -1 : this.lines.indexOf(before);
    this.at = kept >= 0 ? kept : null;
    if (jump && this.lines.length) this.#goTo(this.#nearest());
    else this.#tell();
    this.model.changed();
  }

  /** The first match from the top of the window on, else the last above. */
  #nearest() {
    const after = this.lines.findIndex((line) => line >= this.model.topLine());
    return after < 0 ? this.lines.length - 1 : after;
  }

  /** Go to the next match, or with -1 to the one before; around the ends. */
  step(by) {
    if (!this.lines.length) return;
    const from = this.at ?? (by > 0 ? this.#nearest() - 1 : this.#nearest());
    this.#goTo((from + by + this.lines.length) % this.lines.length);
    this.model.changed();
  }

  #goTo(at) {
    this.at = at;
    this.model.show(this.lines[at]);
    this.#tell();
  }

  #tell() {
    const of = number.format(this.count);
    if (!this.count) this.output.textContent = "no match";
    else if (this.at === null)
      this.output.textContent = this.count === 1 ? "1 match" : `${of} matches`;
    else this.output.textContent = `${number.format(this.at + 1)} of ${of}`;
    const more = this.count > this.lines.length;
    this.output.title = more ? `the first ${number.format(this.lines.length)} can be visited` : "";
  }

  /** Mark the text itself in the rows on the screen; no element of theirs is touched. */
  mark() {
    if (!("highlights" in CSS)) return;
    CSS.highlights.delete("found");
    if (!this.query) return;
    const fold = (text) => (this.matchesCase ? text : text.toLowerCase());
    const ranges = [];
    for (const text of this.model.layer.querySelectorAll(".row.found .text")) {
      if (ranges.length < MAX_MARKED) ranges.push(...rangesIn(text, fold(this.query), fold));
    }
    CSS.highlights.set("found", new Highlight(...ranges));
  }
}

/** Where in an element's text, which may lie in many nodes, the query is. */
function rangesIn(element, query, fold) {
  const nodes = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  const starts = [];
  let text = "";
  while (nodes.nextNode()) {
    starts.push([text.length, nodes.currentNode]);
    text += nodes.currentNode.data;
  }
  const folded = fold(text);
  if (folded.length !== text.length) return []; // some letters change length with their case
  const place = (at) => {
    const [begin, node] = starts.findLast(([start]) => start <= at);
    return [node, at - begin];
  };
  const ranges = [];
  for (let at = folded.indexOf(query); at >= 0; at = folded.indexOf(query, at + query.length)) {
    const range = document.createRange();
    range.setStart(...place(at));
    range.setEnd(...place(at + query.length));
    ranges.push(range);
    if (ranges.length >= 50) break;
  }
  return ranges;
}
