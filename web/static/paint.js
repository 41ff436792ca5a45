/** Renders runs as elements. A log is untrusted: its text only becomes text nodes, never markup. */

import { BOLD, DIM, ITALIC, REVERSE, STRIKE, UNDERLINE } from "./ansi.js";

/** @typedef {import("./ansi.js").Colour} Colour */
/** @typedef {import("./ansi.js").Run} Run */

// More spans in one row would cost more than its colours are worth.
const MAX_RUNS = 250;
/** @type {[flag: number, className: string][]} */
const FLAGS = [
  [BOLD, "bold"],
  [DIM, "dim"],
  [ITALIC, "italic"],
  [UNDERLINE, "underline"],
  [STRIKE, "strike"],
];
// Controls and characters that reorder or hide text are shown as symbols.
const HIDDEN =
  /[\0-\x08\x0a-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]/gu;

/**
 * The symbol for an invisible or harmful character.
 * @param {string} char
 */
export function symbol(char) {
  const code = char.codePointAt(0) ?? 0;
  // Terminal notation: few fonts have Unicode's pictures of controls.
  if (code < 0x20 || code === 0x7f) return `^${String.fromCodePoint(code ^ 0x40)}`;
  return `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
}

/**
 * The visible text of runs: no character in it can reorder or hide another.
 * @param {Pick<Run, "text">[]} runs
 */
export function shownText(runs) {
  return runs.map((run) => run.text.replace(HIDDEN, symbol)).join("");
}

/**
 * A colour of the xterm palette.
 * @param {number} index 16–255
 */
export function paletteColour(index) {
  if (index >= 232) {
    const grey = 8 + 10 * (index - 232);
    return `rgb(${grey}, ${grey}, ${grey})`;
  }
  /** @param {number} value */
  const level = (value) => (value ? 55 + 40 * value : 0);
  const cube = index - 16;
  const parts = [Math.floor(cube / 36), Math.floor(cube / 6) % 6, cube % 6];
  return `rgb(${parts.map(level).join(", ")})`;
}

/**
 * @param {HTMLElement} span
 * @param {"color" | "backgroundColor"} property
 * @param {string} prefix of the classes for the sixteen colours
 * @param {Colour} colour
 */
function setColour(span, property, prefix, colour) {
  if (colour === null) return;
  if (typeof colour === "number" && colour < 16) span.classList.add(prefix + colour);
  else span.style[property] = typeof colour === "number" ? paletteColour(colour) : colour;
}

/** @param {Run} run */
function styled(run) {
  const span = document.createElement("span");
  const { fg, bg, flags } = run.style;
  for (const [flag, name] of FLAGS) if (flags & flag) span.classList.add(name);
  const reverse = flags & REVERSE;
  if (reverse) span.classList.add("reverse");
  setColour(span, "color", "fg", reverse ? bg : fg);
  setColour(span, "backgroundColor", "bg", reverse ? fg : bg);
  return span;
}

/** @param {Element} parent @param {string} text */
function addText(parent, text) {
  let at = 0;
  for (const match of text.matchAll(HIDDEN)) {
    if (match.index > at) parent.append(text.slice(at, match.index));
    const element = document.createElement("span");
    element.className = "symbol";
    element.textContent = symbol(match[0]);
    parent.append(element);
    at = match.index + match[0].length;
  }
  if (at < text.length) parent.append(text.slice(at));
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
  for (const run of runs.slice(0, MAX_RUNS)) {
    const { fg, bg, flags } = run.style;
    if (fg === null && bg === null && !flags) {
      addText(parent, run.text);
      continue;
    }
    const span = styled(run);
    addText(span, run.text);
    parent.append(span);
  }
  // Symbols are elements too; the caller's limit of characters bounds them.
  if (runs.length > MAX_RUNS)
    addText(
      parent,
      runs
        .slice(MAX_RUNS)
        .map((run) => run.text)
        .join(""),
    );
}
