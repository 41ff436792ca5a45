/**
 * Terminal control sequences in a line: colours, `\r`, backspace, erasing.
 *
 * Complete sequences of other kinds are dropped. Broken ones are shown, so that a log cannot hide
 * text behind them.
 */

import { linkTo } from "./links.js";

/** @typedef {null | number | string} Colour null: the default; 0–255, or `rgb(r, g, b)` */
/** @typedef {import("./links.js").Link} Link */
/** @typedef {Readonly<{fg: Colour, bg: Colour, flags: number, link?: Link}>} Style */
/** @typedef {{text: string, style: Style}} Run text of one style */

export const BOLD = 1;
export const DIM = 2;
export const ITALIC = 4;
export const UNDERLINE = 8;
export const REVERSE = 16;
export const STRIKE = 32;

/**
 * The style at the start of a log.
 * @type {Style}
 */
export const RESET = Object.freeze({ fg: null, bg: null, flags: 0 });

// Terminals read at most 16 or 32 parameters; thousands of them are an attack.
const MAX_PARAMS = 32;
const MAX_COLUMNS = 20_000;
const ESC = 0x1b;

const CSI = /\x1b\[([0-?]{0,256})[ -/]{0,16}([@-~])/y;
const LINK = /\x1b\]8;[^;\x07\x1b]{0,1000};([^\x07\x1b]{0,2000})(?:\x07|\x1b\\)/y;
// Titles, other links and device strings. Unterminated ones do not match and are shown.
const STRING = /\x1b[\]PX^_][^\x07\x1b]{0,100000}(?:\x07|\x1b\\)/y;
const CHARSET = /\x1b[ -/]{1,4}[0-~]/y;
const PLAIN = /\x1b[0-OQ-WYZ\\`-~]/y;
const MOVES = /[\r\b]|\x1b\[[0-9;]*[CDG]|\x1b\[[12]K/;
// As terminals count cells: East Asian wide characters and emoji take two, combining ones none.
const WIDE =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\ua960-\ua97f\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff01-\uff60\uffe0-\uffe6\u{20000}-\u{3fffd}]|\p{Emoji_Presentation}/u;
const COMBINING = /[\p{M}\u200b-\u200d]/u;
const TAB_CELLS = 8;
const MARKER =
  /travis_(?:fold|time):(?:start|end):[\w.,=:/+@-]{1,200}(?:\r?\x1b\[0?K|\r(?!\x1b)|$)/g;
// The marker of a group, before its name.
const GROUP =
  /^((?:\x1b\[[\d;]{0,12}[mK]|\r|\x1b_bk;t=\d{1,20}\x07|\d{4}-\d\d-\d\dT[\d:.]{8,20}Z (?:\d\d[OE][ +])?){0,3})(?:::group::|##\[group\])/;

// The flags that a code sets and clears.
/** @type {Record<number, number>} */
const ON = { 1: BOLD, 2: DIM, 3: ITALIC, 4: UNDERLINE, 7: REVERSE, 9: STRIKE, 21: UNDERLINE };
/** @type {Record<number, number>} */
const OFF = { 22: BOLD | DIM, 23: ITALIC, 24: UNDERLINE, 27: REVERSE, 29: STRIKE };

/**
 * The colour of a palette index (kind 5) or of three values (kind 2).
 * @param {string} kind
 * @param {string[]} values
 * @returns {Colour | undefined}
 */
function colour(kind, values) {
  const numbers = values.map((value) => Number(value || 0));
  if (!numbers.every((value) => value >= 0 && value <= 255)) return undefined;
  if (kind === "5" && numbers.length >= 1) return numbers[0];
  if (kind === "2" && numbers.length >= 3) return `rgb(${numbers.slice(0, 3).join(", ")})`;
  return undefined;
}

/**
 * Read `38;5;n`, `38;2;r;g;b` or their forms with colons.
 * @param {string[]} params
 * @param {number} at
 * @returns {[colour: Colour | undefined, used: number]}
 */
function extended(params, at) {
  const parts = params[at].split(":");
  if (parts.length > 1) {
    // The six-part form has a colour space before the three values.
    const values = parts.slice(parts[1] === "2" && parts.length > 5 ? 3 : 2);
    return [colour(parts[1], values), 0];
  }
  const used = params[at + 1] === "5" ? 2 : params[at + 1] === "2" ? 4 : 1;
  return [colour(params[at + 1], params.slice(at + 2, at + 1 + used)), used];
}

/**
 * The style after `ESC [ params m`.
 * @param {string} text the parameters
 * @param {Style} style the style before
 * @returns {Style}
 */
export function applySgr(text, style) {
  if ((text === "" || text === "0") && !style.link) return RESET;
  if (!/^[\d;:]*$/.test(text)) return style;
  let { fg, bg, flags } = style;
  const params = text.split(";", MAX_PARAMS);
  for (let i = 0; i < params.length; i++) {
    const code = parseInt(params[i] || "0", 10);
    if (code === 0) [fg, bg, flags] = [null, null, 0];
    else if (params[i] === "4:0") flags &= ~UNDERLINE;
    else if (ON[code]) flags |= ON[code];
    else if (OFF[code]) flags &= ~OFF[code];
    else if (code >= 30 && code <= 37) fg = code - 30;
    else if (code >= 40 && code <= 47) bg = code - 40;
    else if (code >= 90 && code <= 97) fg = code - 82;
    else if (code >= 100 && code <= 107) bg = code - 92;
    else if (code === 39) fg = null;
    else if (code === 49) bg = null;
    else if (code === 38 || code === 48 || code === 58) {
      const [found, used] = extended(params, i);
      i += used;
      if (found !== undefined && code === 38) fg = found;
      if (found !== undefined && code === 48) bg = found;
    }
  }
  const isSame = fg === style.fg && bg === style.bg && flags === style.flags;
  return isSame ? style : { ...style, fg, bg, flags };
}

/**
 * The style after a range of bytes, reading only their colours.
 * @param {Uint8Array} bytes
 * @param {number} from
 * @param {number} to
 * @param {Style} style the style before
 */
export function scanStyle(bytes, from, to, style) {
  for (let at = bytes.indexOf(ESC, from); at >= 0 && at < to; at = bytes.indexOf(ESC, at + 1)) {
    if (bytes[at + 1] !== 0x5b) continue;
    let end = at + 2;
    while (end < to && end - at < 258 && bytes[end] >= 0x30 && bytes[end] <= 0x3b) end++;
    if (end < to && bytes[end] === 0x6d) {
      style = applySgr(String.fromCharCode(...bytes.subarray(at + 2, end)), style);
    }
  }
  return style;
}

/**
 * Remove fold and time markers from a line, except those that a terminal overwrites.
 * @param {string} text
 */
export function withoutMarkers(text) {
  const rest = text.includes("group") ? text.replace(GROUP, "$1") : text;
  return rest.includes("travis_") ? rest.replace(MARKER, "") : rest;
}

/**
 * The cells that a terminal uses for a character.
 * @param {string} char
 */
function cells(char) {
  if (char < "\u0300") return 1;
  return COMBINING.test(char) ? 0 : WIDE.test(char) ? 2 : 1;
}

/** A line whose cursor may move back, in cells; the second cell of a wide character is empty. */
class Line {
  /** @param {Style} style */
  constructor(style) {
    this.style = style;
    /** @type {string[]} */
    this.chars = [];
    /** @type {Style[]} */
    this.styles = [];
    this.column = 0;
  }

  /** @param {string} text */
  print(text) {
    if (!text) return;
    this.move(this.column);
    for (const char of text) {
      const width = cells(char);
      if (this.column + width > MAX_COLUMNS) return;
      if (char === "\t") this.move(this.column + TAB_CELLS - (this.column % TAB_CELLS));
      else if (width === 0 && this.column > 0) this.#combine(char);
      else this.#put(char, Math.max(width, 1));
    }
  }

  /** @param {string} char @param {number} width */
  #put(char, width) {
    const { chars, styles, column } = this;
    const end = column + width;
    // A wide character that loses one of its cells leaves a space in the other.
    if (chars[column] === "") chars[column - 1] = " ";
    if (chars[end] === "") chars[end] = " ";
    for (let at = column; at < end; at++) {
      chars[at] = at === column ? char : "";
      styles[at] = this.style;
    }
    this.column = end;
  }

  /** @param {string} char is added to the one before the cursor */
  #combine(char) {
    const at = this.column - 1;
    this.chars[this.chars[at] === "" ? at - 1 : at] += char;
  }

  /** @param {number} column */
  move(column) {
    this.column = Math.min(Math.max(column, 0), MAX_COLUMNS);
    while (this.chars.length < this.column) {
      this.chars.push(" ");
      this.styles.push(RESET);
    }
  }

  /** @param {string} params @param {string} final */
  control(params, final) {
    const count = Math.min(parseInt(params || "0", 10) || 0, MAX_COLUMNS);
    if (final === "m") this.style = applySgr(params, this.style);
    else if (final === "C") this.move(this.column + (count || 1));
    else if (final === "D") this.move(this.column - (count || 1));
    else if (final === "G") this.move((count || 1) - 1);
    else if (final === "K") this.erase(count);
  }

  /**
   * Erase the line from the cursor (0), up to it (1), or completely (2).
   * @param {number} mode
   */
  erase(mode) {
    if (mode === 1) {
      this.chars.fill(" ", 0, this.column + 1);
      this.styles.fill(RESET, 0, this.column + 1);
      if (this.chars[this.column + 1] === "") this.chars[this.column + 1] = " ";
      return;
    }
    if (mode === 0 && this.chars[this.column] === "") this.chars[this.column - 1] = " ";
    this.chars.length = mode === 0 ? Math.min(this.column, this.chars.length) : 0;
    this.styles.length = this.chars.length;
  }

  runs() {
    /** @type {Run[]} */
    const runs = [];
    for (let i = 0; i < this.chars.length; i++) {
      const last = runs[runs.length - 1];
      if (last && last.style === this.styles[i]) last.text += this.chars[i];
      else runs.push({ text: this.chars[i], style: this.styles[i] });
    }
    return runs;
  }
}

/** A line whose cursor only moves forward, as in nearly all lines. It needs no cells. */
class ForwardLine {
  /** @param {Style} style */
  constructor(style) {
    this.style = style;
    /** @type {Run[]} */
    this.printed = [];
  }

  /** @param {string} text */
  print(text) {
    const last = this.printed[this.printed.length - 1];
    if (last && last.style === this.style) last.text += text;
    else if (text) this.printed.push({ text, style: this.style });
  }

  /** @param {string} params @param {string} final */
  control(params, final) {
    if (final === "m") this.style = applySgr(params, this.style);
  }

  runs() {
    return this.printed;
  }
}

/**
 * Parse one line.
 * @param {string} line without its "\n"
 * @param {Style} [style] the style at its start
 * @returns {{runs: Run[], style: Style}} its runs and the style at its end
 */
export function parseLine(line, style = RESET) {
  const text = withoutMarkers(line).replace(/\r+$/, "");
  const screen = MOVES.test(text) ? new Line(style) : new ForwardLine(style);
  let at = 0;
  while (at < text.length) {
    const next = nextControl(text, at, screen instanceof Line);
    screen.print(text.slice(at, next));
    at = next < text.length ? execute(screen, text, next) : next;
  }
  // A link ends with its line.
  const { style: end } = screen;
  return { runs: screen.runs(), style: end.link ? withLink(end, undefined) : end };
}

/** @param {Style} style @param {Link | undefined} link */
function withLink({ fg, bg, flags }, link) {
  if (link) return { fg, bg, flags, link };
  return fg === null && bg === null && !flags ? RESET : { fg, bg, flags };
}

/** @param {string} text @param {number} at @param {boolean} moves */
function nextControl(text, at, moves) {
  if (!moves) {
    const found = text.indexOf("\x1b", at);
    return found < 0 ? text.length : found;
  }
  const control = /[\x1b\r\b]/g;
  control.lastIndex = at;
  return control.exec(text)?.index ?? text.length;
}

/**
 * Execute the control at `at`.
 * @param {Line | ForwardLine} screen
 * @param {string} text
 * @param {number} at
 * @returns {number} where the text continues
 */
function execute(screen, text, at) {
  if (screen instanceof Line && text[at] !== "\x1b") {
    screen.move(text[at] === "\r" ? 0 : screen.column - 1);
    return at + 1;
  }
  CSI.lastIndex = at;
  const csi = CSI.exec(text);
  if (csi) {
    screen.control(csi[1], csi[2]);
    return CSI.lastIndex;
  }
  LINK.lastIndex = at;
  const marked = LINK.exec(text);
  if (marked) {
    const link = linkTo(marked[1]);
    screen.style = withLink(screen.style, link && { ...link, isMarked: true });
    return LINK.lastIndex;
  }
  for (const pattern of [STRING, CHARSET, PLAIN]) {
    pattern.lastIndex = at;
    if (pattern.test(text)) return pattern.lastIndex;
  }
  screen.print("\x1b"); // a broken sequence: shown as a symbol
  return at + 1;
}
