/** Copying: what goes to the clipboard is what is to be seen, without line numbers. */

import { shownText } from "./paint.js";

const MAX_BYTES = 8 * 1024 * 1024;

/**
 * The text of lines, wherever they are.
 * @throws {RangeError} there are too many bytes for a clipboard
 */
export async function textOf(lines, first, last) {
  const { outline, blocks } = lines;
  const from = Math.max(outline.span(first)[0] - 1, 0);
  const [, until] = outline.span(Math.min(last, outline.lines - 1));
  if ((until - from) * outline.blockBytes > MAX_BYTES) {
    throw new RangeError("that is too much for the clipboard: select less, or download the log");
  }
  await blocks.load(from, until);
  const texts = [];
  for (let line = first; line <= Math.min(last, outline.lines - 1); line++) {
    texts.push(shownText(lines.readWhole(line).runs));
  }
  return texts.join("\n");
}

/** Put text on the clipboard; pages without TLS have only the old way. */
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
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("the browser did not let the page copy");
}

/** Let a selection made with the mouse copy whole rows cleanly. */
export function cleanCopies(layer) {
  document.addEventListener("copy", (event) => {
    const selection = getSelection();
    if (selection.isCollapsed || !selection.rangeCount) return;
    const range = selection.getRangeAt(0);
    if (!layer.contains(range.commonAncestorContainer)) return;
    const texts = [];
    for (const text of layer.querySelectorAll(".text")) {
      if (range.intersectsNode(text)) texts.push(within(range, text));
    }
    event.clipboardData.setData("text/plain", texts.join("\n"));
    event.preventDefault();
  });
}

function within(range, element) {
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
