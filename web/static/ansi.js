/**
 * Terminal escapes, as far as a log needs them: colours, `\r`, backspace and erasing.
 *
 * What is not understood is dropped when it is a whole sequence and shown when it is not, so that
 * nothing a log says can hide behind a broken one.
 */

export const BOLD = 1;
export const DIM = 2;
export const ITALIC = 4;
export const UNDERLINE = 8;
export const REVERSE = 16;
export const STRIKE = 32;

/** The style at the start of a log. Colours: null, 0–255, or `rgb(r, g, b)`. */
export const RESET = Object.freeze({ fg: null, bg: null, flags: 0 });

// Terminals give up at 16 or 32 parameters; a log that sends thousands only wants our time.
const MAX_PARAMS = 32;
const MAX_COLUMNS = 20_000;
const ESC = 0x1b;

const CSI = /\x1b\[([0-?]{0,256})[ -/]{0,16}([@-~])/y;
// Titles, links and device strings; unterminated ones do not match and are shown.
const STRING = /\x1b[\]PX^_][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)/y;
const CHARSET = /\x1b[ -/]{1,4}[0-~]/y;
const PLAIN = /\x1b[0-OQ-WYZ\\`-~]/y;
const MOVES = /[\r\b]|\x1b\[[0-9;]*[CDG]|\x1b\[[12]K/;
const MARKER =
  /travis_(?:fold|time):(?:start|end):[\w.,=:/+@-]{1,200}(?:\r?\x1b\[0?K|\r(?!\x1b)|$)/g;

// What is on for a code, and off again.
const ON = { 1: BOLD, 2: DIM, 3: ITALIC, 4: UNDERLINE, 7: REVERSE, 9: STRIKE, 21: UNDERLINE };
const OFF = { 22: BOLD | DIM, 23: ITALIC, 24: UNDERLINE, 27: REVERSE, 29: STRIKE };

function colour(kind, values) {
  const numbers = values.map((value) => Number(value || 0));
  const limit = numbers.every((value) => value >= 0 && value <= 255);
  if (kind === "5" && numbers.length >= 1 && limit) return numbers[0];
  if (kind === "2" && numbers.length >= 3 && limit) return `rgb(${numbers.slice(0, 3).join(", ")})`;
  return undefined;
}

/** `38;5;n`, `38;2;r;g;b` and their forms with colons; returns [colour, parameters used]. */
function extended(params, at) {
  const parts = params[at].split(":");
  if (parts.length > 1) {
    // The form with six parts names a colour space before the three values.
    const values = parts.slice(parts[1] === "2" && parts.length > 5 ? 3 : 2);
    return [colour(parts[1], values), 0];
  }
  const used = params[at + 1] === "5" ? 2 : params[at + 1] === "2" ? 4 : 1;
  return [colour(params[at + 1], params.slice(at + 2, at + 1 + used)), used];
}

/**
 * The style after `ESC [ params m`.
 * @param {string} text the parameters
 * @param {{fg: null|number|string, bg: null|number|string, flags: number}} style the style before
 */
export function applySgr(text, style) {
  if (text === "" || text === "0") return RESET;
  if (!/^[\d;:]+$/.test(text)) return style;
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
  return isSame ? style : { fg, bg, flags };
}

/**
 * The style after these bytes, reading nothing in them but colours.
 * @param {Uint8Array} bytes
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

/** A line's text without the markers of folds and timers; they are no part of what was said. */
export function withoutMarkers(text) {
  return text.includes("travis_") ? text.replace(MARKER, "") : text;
}

/** A line on its way to runs of one style each, with a cursor that may go back. */
class Line {
  constructor(style) {
    this.style = style;
    this.chars = [];
    this.styles = [];
    this.column = 0;
  }

  print(text) {
    if (!text) return;
    this.move(this.column);
    for (const char of text) {
      if (this.column >= MAX_COLUMNS) return;
      this.chars[this.column] = char;
      this.styles[this.column++] = this.style;
    }
  }

  move(column) {
    this.column = Math.min(Math.max(column, 0), MAX_COLUMNS);
    while (this.chars.length < this.column) {
      this.chars.push(" ");
      this.styles.push(RESET);
    }
  }

  control(params, final) {
    const count = Math.min(parseInt(params || "0", 10) || 0, MAX_COLUMNS);
    if (final === "m") this.style = applySgr(params, this.style);
    else if (final === "C") this.move(this.column + (count || 1));
    else if (final === "D") this.move(this.column - (count || 1));
    else if (final === "G") this.move((count || 1) - 1);
    else if (final === "K") this.erase(count);
  }

  /** What is left of the cursor (1), right of it (0), or all (2). */
  erase(how) {
    if (how === 1) {
      this.chars.fill(" ", 0, this.column + 1);
      this.styles.fill(RESET, 0, this.column + 1);
      return;
    }
    const kept = how === 0 ? Math.min(this.column, this.chars.length) : 0;
    this.chars.length = this.styles.length = kept;
  }

  runs() {
    const runs = [];
    for (let i = 0; i < this.chars.length; i++) {
      const last = runs[runs.length - 1];
      if (last && last.style === this.styles[i]) last.text += this.chars[i];
      else runs.push({ text: this.chars[i], style: this.styles[i] });
    }
    return runs;
  }
}

/** The same for a line whose cursor only goes forward, which nearly all are: no cells needed. */
class ForwardLine {
  constructor(style) {
    this.style = style;
    this.found = [];
  }

  print(text) {
    const last = this.found[this.found.length - 1];
    if (last && last.style === this.style) last.text += text;
    else if (text) this.found.push({ text, style: this.style });
  }

  control(params, final) {
    if (final === "m") this.style = applySgr(params, this.style);
  }

  runs() {
    return this.found;
  }
}

/**
 * Read one line.
 * @param {string} text without its "\n"
 * @param {object} style the style it begins with
 * @returns {{runs: {text: string, style: object}[], style: object}} and the style it ends with
 */
export function parseLine(text, style = RESET) {
  text = withoutMarkers(text).replace(/\r+$/, "");
  const line = MOVES.test(text) ? new Line(style) : new ForwardLine(style);
  let at = 0;
  while (at < text.length) {
    const next = nextControl(text, at, line instanceof Line);
    line.print(text.slice(at, next));
    at = next < text.length ? obey(line, text, next) : next;
  }
  return { runs: line.runs(), style: line.style };
}

function nextControl(text, at, moves) {
  if (!moves) {
    const found = text.indexOf("\x1b", at);
    return found < 0 ? text.length : found;
  }
  const control = /[\x1b\r\b]/g;
  control.lastIndex = at;
  return control.exec(text)?.index ?? text.length;
}

/** Do what the control at `at` says; returns where the text goes on. */
function obey(line, text, at) {
  if (text[at] === "\r") {
    line.move(0);
    return at + 1;
  }
  if (text[at] === "\b") {
    line.move(line.column - 1);
    return at + 1;
  }
  CSI.lastIndex = at;
  const csi = CSI.exec(text);
  if (csi) {
    line.control(csi[1], csi[2]);
    return CSI.lastIndex;
  }
  for (const pattern of [STRING, CHARSET, PLAIN]) {
    pattern.lastIndex = at;
    if (pattern.test(text)) return pattern.lastIndex;
  }
  line.print("\x1b"); // shown as a symbol: the sequence is broken
  return at + 1;
}
