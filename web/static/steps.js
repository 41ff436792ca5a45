/** The steps of a log: the panel that lists them, and the header of the one that the reader is in. */

import { byId } from "./dom.js";
import { bisect, duration } from "./folds.js";
import { cutRuns, shownText } from "./paint.js";

/** @typedef {import("./folds.js").ShownStep} ShownStep */
/** @typedef {import("./log.js").Log} Log */

const MAX_SHOWN = 1000;
const MAX_LOADED = 50; // names whose lines are fetched when the panel opens
const MAX_BLOCKS = 4; // per name
const NAME_CHARACTERS = 200;
const LIVE_MS = 1000;

export class Steps {
  /** @type {Map<number, string>} by line */
  #names = new Map();
  /** @type {WeakMap<HTMLElement, string>} what the items of the panel show */
  #filled = new WeakMap();
  #timer = 0;
  #top = 0;

  /**
   * @param {Log} log
   * @param {(line: number) => void} goTo
   */
  constructor(log, goTo) {
    this.log = log;
    this.panel = byId("steps", HTMLElement);
    this.list = this.panel.appendChild(document.createElement("ol"));
    this.button = byId("show-steps", HTMLElement);
    this.stuck = byId("stuck", HTMLElement);
    this.button.addEventListener("click", () => this.toggle());
    for (const element of [this.panel, this.stuck]) {
      element.addEventListener("click", ({ target }) => {
        const step = target instanceof Element ? target.closest("[data-step]") : null;
        if (step instanceof HTMLElement) goTo(Number(step.dataset.step));
      });
    }
  }

  get #steps() {
    const { ended, folds } = this.log;
    return ended ? folds.steps.filter(({ isTimer }) => !isTimer) : folds.steps;
  }

  /** @param {boolean} [on] whether the panel is shown */
  toggle(on = Boolean(this.panel.hidden)) {
    this.panel.hidden = !on;
    this.button.setAttribute("aria-pressed", String(on));
    if (!on) return;
    this.#draw();
    this.#loadNames(this.#steps.filter(({ name }) => !name).slice(0, MAX_LOADED));
  }

  /** The log was opened or replaced. */
  reset() {
    this.#names.clear();
    this.changed();
  }

  /** The steps or the errors may have changed. */
  changed() {
    this.button.hidden = !this.#steps.length;
    this.#timer ||= setTimeout(
      () => {
        this.#timer = 0;
        if (!this.panel.hidden) this.#draw();
      },
      this.log.ended ? 0 : LIVE_MS,
    );
  }

  /**
   * Show the header of the step that a line is in.
   * @param {number} top the line at the top of the window
   */
  moved(top) {
    this.#top = top;
    const step = this.#around(top);
    const shown = step && step.line < top ? step : undefined;
    this.stuck.hidden = !shown;
    if (shown) {
      const name = this.#name(shown);
      if (this.stuck.textContent !== name) this.stuck.textContent = name;
      if (!this.#names.has(shown.line)) this.#loadNames([shown]);
      this.stuck.dataset.step = String(shown.line);
    }
    if (this.panel.hidden) return;
    for (const current of this.list.querySelectorAll("[aria-current]")) {
      if (current.getAttribute("data-step") !== String(step?.line)) {
        current.removeAttribute("aria-current");
      }
    }
    this.list.querySelector(`[data-step="${step?.line}"]`)?.setAttribute("aria-current", "step");
  }

  /**
   * The innermost step around a line.
   * @param {number} line
   */
  #around(line) {
    const steps = this.#steps;
    return steps
      .slice(
        0,
        bisect(steps, (step) => step.line > line),
      )
      .findLast(({ line: start, end }) => start === line || end === null || line < end);
  }

  /** @param {ShownStep} step */
  #name(step) {
    const known = this.#names.get(step.line);
    const read = known === undefined && this.log.isOpen ? this.log.lines.read(step.line) : null;
    if (read) {
      const text = shownText(cutRuns(read.runs, NAME_CHARACTERS).runs).trim();
      this.#names.set(step.line, text);
    }
    return step.name || this.#names.get(step.line) || `Line ${step.line + 1}`;
  }

  /**
   * Load the lines that name steps.
   * @param {ShownStep[]} steps
   */
  async #loadNames(steps) {
    for (const step of steps) {
      this.#name(step);
      const needed = this.log.lines.needs(step.line);
      const [first, last] = [Math.min(...needed), Math.max(...needed)];
      if (this.#names.has(step.line) || last - first >= MAX_BLOCKS) continue;
      this.#names.set(step.line, ""); // not twice
      try {
        await this.log.blocks.load(first, last);
      } catch {
        continue; // the number of the line remains its name
      }
      this.#names.delete(step.line);
      this.#name(step);
      this.changed();
    }
  }

  #draw() {
    const steps = this.#steps.slice(0, MAX_SHOWN);
    const longest = Math.max(...steps.map(({ seconds }) => seconds ?? 0));
    while (this.list.children.length > steps.length) this.list.lastChild?.remove();
    while (this.list.children.length < steps.length) this.list.append(makeItem());
    for (const [at, button] of [...this.list.querySelectorAll("button")].entries()) {
      this.#fill(button, steps[at], longest);
    }
    this.moved(this.#top);
  }

  /**
   * Change what has changed: a layout of many steps takes long.
   * @param {HTMLElement} button
   * @param {ShownStep} step
   * @param {number} longest in seconds
   */
  #fill(button, step, longest) {
    const { line, seconds } = step;
    const texts = {
      state: this.#state(step),
      name: this.#name(step),
      part: String(seconds ? seconds / longest : 0),
      time: seconds === undefined ? "" : duration(seconds),
      step: String(line),
    };
    const all = Object.values(texts).join("\n");
    if (this.#filled.get(button) === all) return;
    this.#filled.set(button, all);
    button.dataset.step = texts.step;
    button.dataset.state = texts.state;
    const [mark, name, share, time] = button.querySelectorAll("span");
    mark.setAttribute("aria-label", texts.state);
    name.textContent = texts.name;
    share.style.setProperty("--part", texts.part);
    time.textContent = texts.time;
  }

  /** @param {ShownStep} step */
  #state({ line, end }) {
    const { errors } = this.log.outline;
    const error = errors[bisect(errors, (at) => at >= line)] ?? Infinity;
    if (error < (end ?? Infinity)) return "failed";
    if (end !== null) return "done";
    return this.log.ended ? "unfinished" : "running";
  }
}

function makeItem() {
  const button = document.createElement("button");
  button.type = "button";
  for (const className of ["mark", "name", "share", "time"]) {
    const element = button.appendChild(document.createElement("span"));
    element.className = className;
    if (className === "mark") element.setAttribute("role", "img");
  }
  const item = document.createElement("li");
  item.append(button);
  return item;
}
