/** Renders runs as elements. A log is untrusted: its text only becomes text nodes, never markup. */

import { BOLD, DIM, ITALIC, REVERSE, STRIKE, UNDERLINE } from "./ansi.js";
import { cssColours } from "./colours.js";

/** @typedef {import("./ansi.js").Colour} Colour */
/** @typedef {import("./ansi.js").Run} Run */

// More elements in one row would cost more than its colours and symbols are worth.
const MAX_ELEMENTS = 250;
/** @type {[flag: number, className: string][]} */
const FLAGS = [
  [BOLD, "bold"],
  [DIM, "dim"],
  [ITALIC, "italic"],
  [UNDERLINE, "underline"],
  [STRIKE, "strike"],
];
// Controls and characters that reorder or hide text are shown as symbols; equal ones in a row as one.
// Joiners and variation selectors stay where scripts and emoji need them.
const HIDDEN =
  // biome-ignore lint/suspicious/noMisleadingCharacterClass: each is meant by itself
  /([\0-\x08\x0a-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\u{e0000}-\u{e0fff}]|(?<![^\0-\u036f\u200b-\u200f])[\u200c\u200d]|(?<!\p{Extended_Pictographic})[\ufe0e\ufe0f](?!\u20e3))\1*/gu;

/**
 * The symbol for a run of one invisible or harmful character.
 * @param {string} text
 */
export function symbol(text) {
  const code = text.codePointAt(0) ?? 0;
  const count = text.length / (code > 0xffff ? 2 : 1);
  // Terminal notation: few fonts have Unicode's pictures of controls.
  const isControl = code < 0x20 || code === 0x7f;
  const name = isControl
    ? `^${String.fromCodePoint(code ^ 0x40)}`
    : `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
  return count > 1 ? `${name}×${count}` : name;
}

/**
 * The visible text of runs: no character in it can reorder or hide another.
 * @param {Pick<Run, "text">[]} runs
 */
export function shownText(runs) {
  return runs.map((run) => run.text.replace(HIDDEN, (text) => symbol(text))).join("");
}

/** @param {Colour} colour */
const isExtended = (colour) => typeof colour === "string" || (colour ?? 0) >= 16;

/** @param {import("./links.js").Link} link */
function anchor({ href, host, isMarked }) {
  const element = document.createElement("a");
  element.href = href;
  element.title = host;
  element.rel = "noopener noreferrer";
  element.target = "_blank";
  element.draggable = false; // dragging selects text
  if (isMarked) element.dataset.host = host;
  return element;
}

/** @param {Run} run */
function styled(run) {
  const { fg, bg, flags, link } = run.style;
  const span = link ? anchor(link) : document.createElement("span");
  for (const [flag, name] of FLAGS) if (flags & flag) span.classList.add(name);
  const reversed = Boolean(flags & REVERSE);
  if (reversed) span.classList.add("reverse");
  const [front, back] = reversed ? [bg, fg] : [fg, bg];
  if (isExtended(front) || isExtended(back)) {
    Object.assign(span.style, cssColours(front, back, reversed));
    return span;
  }
  if (front !== null) span.classList.add(`fg${front}`);
  if (back !== null) span.classList.add(`bg${back}`);
  return span;
}

/**
 * @param {Element} parent
 * @param {string} text
 * @param {number} limit of elements; further symbols are plain text
 * @returns {number} the elements made
 */
function addText(parent, text, limit) {
  let at = 0;
  let made = 0;
  let plain = "";
  for (const match of text.matchAll(HIDDEN)) {
    plain += text.slice(at, match.index);
    at = match.index + match[0].length;
    if (made >= limit) {
      plain += symbol(match[0]);
      continue;
    }
    if (plain) parent.append(plain);
    plain = "";
    const element = document.createElement("span");
    element.className = "symbol";
    element.textContent = symbol(match[0]);
    parent.append(element);
    made++;
  }
  plain += text.slice(at);
  if (plain) parent.append(plain);
  return made;
}

/**
 * Cut runs after a number of characters.
 * @param {Run[]} runs
 * @param {number} count
 * @returns {{runs: Run[], cut: boolean}}
 */
export function cutRuns(runs, count) {
  const head = [];
  let left = count;
  for (const run of runs) {
    if (left <= 0 && run.text) return { runs: head, cut: true };
    if (run.text.length > left) {
      head.push({ ...run, text: run.text.slice(0, left) });
      return { runs: head, cut: true };
    }
    head.push(run);
    left -= run.text.length;
  }
  return { runs: head, cut: false };
}

/**
 * Append runs to an element.
 * @param {Element} parent
 * @param {Run[]} runs
 */
export function paintRuns(parent, runs) {
  let left = MAX_ELEMENTS;
  for (const [at, run] of runs.entries()) {
    if (left <= 0) {
      parent.append(shownText(runs.slice(at)));
      return;
    }
    const { fg, bg, flags, link } = run.style;
    if (fg === null && bg === null && !flags && !link) {
      left -= addText(parent, run.text, left);
      continue;
    }
    const span = styled(run);
    parent.append(span);
    left -= 1 + addText(span, run.text, left - 1);
  }
}
