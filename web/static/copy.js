/** Copying: the clipboard gets the visible text of what is selected, without line numbers. */

import { size } from "./lifecycle.js";
import { shownText } from "./paint.js";

/** @typedef {import("./lines.js").Lines} Lines */
/** @typedef {{line: number, offset: number}} Point a position in the shown text of a line */
/** @typedef {{from: Point, to: Point}} Span the text between two points */

const MAX_BYTES = 8 * 1024 * 1024;
// More lines are copied in steps, so that the page does not freeze.
const LINES_AT_ONCE = 1000;
const number = new Intl.NumberFormat("en");

/**
 * The blocks with the text of a span.
 * @param {Lines} lines
 * @param {Span} span
 * @returns {[first: number, last: number]}
 * @throws {RangeError} if they are too long for the clipboard
 */
function blocksOf({ outline }, { from, to }) {
  const first = Math.max(outline.span(from.line)[0] - 1, 0);
  const [, last] = outline.span(to.line);
  if ((last - first) * outline.blockBytes > MAX_BYTES) {
    throw new RangeError("too long for the clipboard: select fewer lines, or download the log");
  }
  return [first, last];
}

/**
 * The text of some lines, whose blocks must be held.
 * @param {Lines} lines
 * @param {Span} span
 * @param {number} first
 * @param {number} end exclusive
 * @param {(line: number) => boolean} isBare whether a line has only markers, and no row
 */
function textOf(lines, { from, to }, first, end, isBare) {
  const texts = [];
  for (let line = first; line < end; line++) {
    if (isBare(line)) continue;
    const text = shownText(lines.readWhole(line).runs);
    const start = line === from.line ? from.offset : 0;
    texts.push(text.slice(start, line === to.line ? to.offset : undefined));
  }
  return texts;
}

/**
 * Put text on the clipboard; pages without TLS only have the old API.
 * @param {string} text
 */
export async function toClipboard(text) {
  if (navigator.clipboard && isSecureContext) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "offscreen";
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  if (!copied) throw new Error("the browser did not allow the page to copy");
}

/** The text selected in the log, which may reach over rows that do not exist. */
export class Copying {
  #whole = false; // Ctrl-A: also the lines that are not drawn

  /**
   * @param {HTMLElement} layer contains the rows
   * @param {Lines} lines
   * @param {(line: number) => boolean} isBare
   * @param {(text: string) => void} say
   */
  constructor(layer, lines, isBare, say) {
    this.layer = layer;
    this.lines = lines;
    this.isBare = isBare;
    this.say = say;
    document.addEventListener("copy", (event) => this.#copied(event));
    document.addEventListener("selectionchange", () => {
      const selection = getSelection();
      this.#whole &&= selection?.isCollapsed === false && selection.anchorNode === layer;
    });
  }

  selectAll() {
    this.#whole = true;
    getSelection()?.selectAllChildren(this.layer);
    const { lines, bytes } = this.lines.outline;
    this.say(`The whole log is selected: ${number.format(lines)} lines, ${size(bytes)}`);
  }

  /** Select the rows that were drawn since `selectAll`. */
  redrawn() {
    if (this.#whole) getSelection()?.selectAllChildren(this.layer);
  }

  /** @returns {Span | null} the selected text; null if there is none */
  get span() {
    const selection = getSelection();
    if (!selection?.rangeCount || selection.isCollapsed) return null;
    const range = selection.getRangeAt(0);
    if (!range.intersectsNode(this.layer)) return null;
    const whole = this.spanOf(0, this.lines.outline.lines - 1);
    if (this.#whole) return whole;
    return {
      from: this.#point(range.startContainer, range.startOffset) ?? whole.from,
      to: this.#point(range.endContainer, range.endOffset) ?? whole.to,
    };
  }

  /**
   * @param {number} first
   * @param {number} last
   * @returns {Span} whole lines, as far as they exist
   */
  spanOf(first, last) {
    const end = Math.min(last, this.lines.outline.lines - 1);
    return { from: { line: first, offset: 0 }, to: { line: end, offset: Infinity } };
  }

  /**
   * Copy text and say how much; fetches blocks that are not held.
   * @param {Span} span
   */
  async copy(span) {
    const { blocks } = this.lines;
    const [first, last] = blocksOf(this.lines, span);
    await blocks.load(first, last);
    /** @type {string[]} */
    const texts = [];
    for (let line = span.from.line; line <= span.to.line; line += LINES_AT_ONCE) {
      const end = Math.min(line + LINES_AT_ONCE, span.to.line + 1);
      const text = textOf(this.lines, span, line, end, this.isBare);
      texts.push(...text);
      if (line + LINES_AT_ONCE <= span.to.line) await new Promise((then) => setTimeout(then));
    }
    await toClipboard(texts.join("\n"));
    this.#sayCopied(texts.length);
  }

  /** @param {number} count of lines */
  #sayCopied(count) {
    this.say(`Copied ${count === 1 ? "1 line" : `${number.format(count)} lines`}`);
  }

  /** @param {ClipboardEvent} event */
  #copied(event) {
    const { span } = this;
    if (!span || event.target instanceof HTMLTextAreaElement) return;
    event.preventDefault();
    const { blocks } = this.lines;
    const isShort = span.to.line - span.from.line < LINES_AT_ONCE;
    try {
      const [first, last] = blocksOf(this.lines, span);
      if (isShort && blocks.holds(first, last)) {
        // Within the event, which needs no permission.
        const texts = textOf(this.lines, span, span.from.line, span.to.line + 1, this.isBare);
        event.clipboardData?.setData("text/plain", texts.join("\n"));
        this.#sayCopied(texts.length);
        return;
      }
    } catch (error) {
      this.say(String(error));
      return;
    }
    this.copy(span).catch((error) => this.say(String(error)));
  }

  /**
   * @param {Node} node
   * @param {number} offset
   * @returns {Point | null} null outside the rows
   */
  #point(node, offset) {
    const inLayer = node === this.layer;
    const child = inLayer ? (node.childNodes[offset] ?? node.lastChild) : node;
    const element = child instanceof Element ? child : child?.parentElement;
    const row = element?.closest(".row");
    const text = row?.querySelector(".text");
    if (!(row instanceof HTMLElement) || !text || !this.layer.contains(row)) return null;
    const line = Number(row.dataset.line);
    if (inLayer) return { line, offset: offset < node.childNodes.length ? 0 : Infinity };
    const before = document.createRange();
    before.selectNodeContents(text);
    const side = before.comparePoint(node, offset);
    if (side !== 0) return { line, offset: side < 0 ? 0 : Infinity };
    before.setEnd(node, offset);
    return { line, offset: before.toString().length };
  }
}
