/** Runs of styled text as elements. Only text nodes and elements are made: a log is hostile HTML. */

import { BOLD, DIM, ITALIC, REVERSE, STRIKE, UNDERLINE } from "./ansi.js";

// More spans than this in one row would cost more than its colours are worth.
const MAX_RUNS = 250;
const FLAGS = [
  [BOLD, "bold"],
  [DIM, "dim"],
  [ITALIC, "italic"],
  [UNDERLINE, "underline"],
  [STRIKE, "strike"],
];
// Controls, and what reorders or hides text: each is shown as a symbol that does neither.
const HIDDEN =
  /[\0-\x08\x0a-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]/gu;

/** What is shown for a character that cannot be seen, or does harm. */
export function symbol(char) {
  const code = char.codePointAt(0);
  // As terminals write them; the pictures that Unicode has for controls are in few fonts.
  if (code < 0x20 || code === 0x7f) return `^${String.fromCodePoint(code ^ 0x40)}`;
  return `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
}

/** Text as it is shown, for copying: no character in it can reorder or hide another. */
export function shownText(runs) {
  return runs.map((run) => run.text.replace(HIDDEN, symbol)).join("");
}

/** The colour of 16–255 in the xterm palette. */
export function paletteColour(index) {
  if (index >= 232) {
    const grey = 8 + 10 * (index - 232);
    return `rgb(${grey}, ${grey}, ${grey})`;
  }
  const level = (value) => (value ? 55 + 40 * value : 0);
  const cube = index - 16;
  const parts = [Math.floor(cube / 36), Math.floor(cube / 6) % 6, cube % 6];
  return `rgb(${parts.map(level).join(", ")})`;
}

function setColour(span, property, prefix, colour) {
  if (colour === null) return;
  if (typeof colour === "number" && colour < 16) span.classList.add(prefix + colour);
  else span.style[property] = typeof colour === "number" ? paletteColour(colour) : colour;
}

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

function addText(parent, text) {
  let at = 0;
  for (const found of text.matchAll(HIDDEN)) {
    if (found.index > at) parent.append(text.slice(at, found.index));
    const mark = document.createElement("span");
    mark.className = "symbol";
    mark.textContent = symbol(found[0]);
    parent.append(mark);
    at = found.index + found[0].length;
  }
  if (at < text.length) parent.append(text.slice(at));
}

/** At most `count` characters of these runs, and whether something was cut. */
export function cutRuns(runs, count) {
  const kept = [];
  let left = count;
  for (const run of runs) {
    if (left <= 0 && run.text) return { runs: kept, cut: true };
    if (run.text.length > left) {
      kept.push({ ...run, text: run.text.slice(0, left) });
      return { runs: kept, cut: true };
    }
    kept.push(run);
    left -= run.text.length;
  }
  return { runs: kept, cut: false };
}

/**
 * Put runs into an element, after what is in it.
 * @param {Element} parent
 * @param {{text: string, style: object}[]} runs
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
  // Symbols are elements too, so a flood of them is cut by the caller's limit of characters.
  if (runs.length > MAX_RUNS)
    addText(
      parent,
      runs
        .slice(MAX_RUNS)
        .map((run) => run.text)
        .join(""),
    );
}
