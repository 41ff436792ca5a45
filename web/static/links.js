/** Links in a log: http and https URLs in its text, and those that programs mark (OSC 8). */

/** @typedef {import("./ansi.js").Run} Run */
/**
 * @typedef {object} Link
 * @property {string} href
 * @property {string} host where it leads, as the browser reads it
 * @property {boolean} [isMarked] by OSC 8, so the text may name another place
 */

const MAX_LENGTH = 2000;
// Letters of other scripts too: a path may contain them unencoded.
const URLS = /\bhttps?:\/\/[\w\-.~:/?#[\]@!$&()*+,;=%\p{L}\p{N}]{1,2000}/giu;
/** @type {Record<string, string>} */
const BRACKETS = { ")": "(", "]": "[" };

/**
 * The link to a URL; undefined unless it is http or https, without a user and a password, behind
 * which the host could be hidden.
 * @param {string} text
 * @returns {Link | undefined}
 */
export function linkTo(text) {
  if (text.length > MAX_LENGTH || !URL.canParse(text)) return undefined;
  const { protocol, host, username, password, href } = new URL(text);
  const isSafe = /^https?:$/.test(protocol) && host && !username && !password;
  return isSafe ? { href, host } : undefined;
}

/**
 * The URL without what ends the sentence around it: punctuation, and brackets opened before it.
 * @param {string} url
 */
function trimmed(url) {
  /** @type {Record<string, number>} */
  const surplus = {};
  for (const [close, open] of Object.entries(BRACKETS)) {
    surplus[close] = url.split(close).length - url.split(open).length;
  }
  let end = url.length;
  for (; end > 0; end--) {
    const last = url[end - 1];
    if (surplus[last] > 0) surplus[last]--;
    else if (!".,;:!?".includes(last)) break;
  }
  return url.slice(0, end);
}

/**
 * Split runs so that each URL in their text is a run, or several if its style changes.
 * @param {Run[]} runs
 * @param {boolean} isCut the text continues: a URL at its end is incomplete
 * @returns {Run[]}
 */
export function linkRuns(runs, isCut = false) {
  const text = runs.map((run) => run.text).join("");
  if (!text.includes("://")) return runs;
  const found = [...text.matchAll(URLS)].map(({ 0: url, index }) => {
    const shown = trimmed(url);
    const isWhole = !isCut || index + url.length < text.length;
    return { begin: index, end: index + shown.length, link: isWhole ? linkTo(shown) : undefined };
  });
  /** @type {Run[]} */
  const result = [];
  let at = 0;
  let next = 0;
  for (const run of runs) {
    const end = at + run.text.length;
    while (at < end) {
      while (found[next]?.end <= at) next++;
      const { begin = end, end: close = end, link } = found[next] ?? {};
      const stop = Math.min(begin > at ? begin : close, end);
      const piece = run.text.slice(run.text.length - (end - at), run.text.length - (end - stop));
      const isLink = begin <= at && link && !run.style.link;
      result.push({ text: piece, style: isLink ? { ...run.style, link } : run.style });
      at = stop;
    }
  }
  return result;
}
