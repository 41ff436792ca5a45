/** Copying: the clipboard gets the visible text, without line numbers. */

import { shownText } from "./paint.js";

/** @typedef {import("./lines.js").Lines} Lines */

const MAX_BYTES = 8 * 1024 * 1024;

/**
 * The text of a range of lines, fetched if necessary.
 * @param {Lines} lines
 * @param {number} first
 * @param {number} last
 * @throws {RangeError} if they are too long for the clipboard
 */
export async function textOf(lines, first, last) {
  const { outline, blocks } = lines;
  const from = Math.max(outline.span(first)[0] - 1, 0);
  const [, until] = outline.span(Math.min(last, outline.lines - 1));
  if ((until - from) * outline.blockBytes > MAX_BYTES) {
    throw new RangeError("too long for the clipboard: select fewer lines, or download the log");
  }
  await blocks.load(from, until);
  const texts = [];
  for (let line = first; line <= Math.min(last, outline.lines - 1); line++) {
    texts.push(shownText(lines.readWhole(line).runs));
  }
  return texts.join("\n");
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

/**
 * Copy only the text of rows that are selected with the mouse.
 * @param {HTMLElement} layer
 */
export function cleanCopies(layer) {
  document.addEventListener("copy", (event) => {
    const selection = getSelection();
    if (!selection?.rangeCount || selection.isCollapsed) return;
    const range = selection.getRangeAt(0);
    if (!layer.contains(range.commonAncestorContainer)) return;
    const texts = [];
    for (const text of layer.querySelectorAll(".text")) {
      if (range.intersectsNode(text)) texts.push(selectedText(range, text));
    }
    event.clipboardData?.setData("text/plain", texts.join("\n"));
    event.preventDefault();
  });
}

/** @param {Range} range @param {Element} element */
function selectedText(range, element) {
  const own = document.createRange();
  own.selectNodeContents(element);
  if (own.comparePoint(range.startContainer, range.startOffset) === 0) {
    own.setStart(range.startContainer, range.startOffset);
  }
  if (own.comparePoint(range.endContainer, range.endOffset) === 0) {
    own.setEnd(range.endContainer, range.endOffset);
  }
  return own.toString();
}
