/** The element of one line: its number, fold, text and what is shown after the text. */

import { duration } from "./folds.js";
import { linkRuns } from "./links.js";
import { cutRuns, paintRuns } from "./paint.js";

/** @typedef {import("./lines.js").ReadLine} ReadLine */
/** @typedef {import("./markers.js").Fold} Fold */
/**
 * @typedef {object} Row the element of a line, and what it was drawn from
 * @property {HTMLElement} element
 * @property {boolean} isComplete its text was available
 * @property {number} length of the line in bytes; -1 if it must be drawn again
 * @property {boolean} isLast
 * @property {Fold | undefined} fold
 * @property {boolean | undefined} isClosed
 * @property {number | undefined} seconds
 * @property {number} hidden the lines that its fold hides
 */

const MIN_SECONDS = 0.1; // shorter steps are not worth a tag

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {string} className
 * @param {string} [text]
 */
function make(tag, className, text) {
  const element = document.createElement(tag);
  element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

/** @param {number} line */
export function makeRow(line) {
  const element = make("div", "row waiting");
  element.setAttribute("role", "listitem");
  element.dataset.line = String(line);
  const number = make("a", "number", String(line + 1));
  number.href = `#L${line + 1}`;
  number.tabIndex = -1; // not a tab stop per line: the keys of the log do the same
  element.append(number, make("span", "arrow"), make("span", "text"));
  return element;
}

/**
 * @param {HTMLElement} element
 * @param {ReadLine} read
 * @param {Fold | undefined} fold
 * @param {string[]} tags
 * @param {number} limit of characters
 */
export function fillRow(element, read, fold, tags, limit) {
  const [, arrow, text, ...extras] = element.children;
  const { runs, cut } = cutRuns(linkRuns(read.runs, read.partial), limit);
  text.replaceChildren();
  paintRuns(text, runs);
  for (const extra of extras) extra.remove();
  if (cut || read.partial) element.append(moreButton(read.length));
  const shownFold = fold && !text.textContent?.trim() ? fold.name : "";
  if (shownFold) text.append(make("span", "foldname", shownFold));
  setArrow(element, arrow, fold);
  for (const tag of tags) element.append(make("span", "tag", tag));
  element.classList.remove("waiting");
}

/**
 * What is shown after the text of a line.
 * @param {number | undefined} seconds
 * @param {number} hidden lines
 */
export function tagsOf(seconds, hidden) {
  const tags = [];
  if (seconds !== undefined && seconds >= MIN_SECONDS) tags.push(duration(seconds));
  if (hidden) tags.push(hidden === 1 ? "1 line" : `${hidden.toLocaleString("en")} lines`);
  return tags;
}

/** @param {HTMLElement} element @param {Element} arrow @param {Fold | undefined} fold */
function setArrow(element, arrow, fold) {
  element.classList.toggle("header", Boolean(fold));
  if (!fold) {
    arrow.replaceChildren();
    return;
  }
  const button = arrow.firstElementChild ?? make("button", "fold");
  button.setAttribute("aria-expanded", String(!fold.closed));
  button.setAttribute("aria-label", `fold ${fold.name}`);
  button.setAttribute("title", fold.name);
  if (!button.parentElement) arrow.append(button);
}

/** @param {number} bytes */
function moreButton(bytes) {
  const kib = bytes / 1024;
  const size = kib < 1024 ? `${Math.ceil(kib)} KiB` : `${(kib / 1024).toFixed(1)} MiB`;
  return make("button", "more", `show the whole line (${size})`);
}

/**
 * Put rows in order with as few moves as possible: moving an element would take its focus.
 * @param {HTMLElement} layer
 * @param {[number, Row][]} rows with their lines
 */
export function arrange(layer, rows) {
  rows.sort(([one], [other]) => one - other);
  let next = layer.firstChild;
  for (const [, { element }] of rows) {
    if (element === next) next = next.nextSibling;
    else layer.insertBefore(element, next);
  }
}

/**
 * Focus the fold of a row, or the log if the row has none.
 * @param {HTMLElement} row
 * @param {HTMLElement} log
 */
export function focusRow(row, log) {
  const button = row.querySelector("button.fold");
  const target = button instanceof HTMLElement ? button : log;
  target.focus({ preventScroll: true });
}
