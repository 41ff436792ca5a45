/** The page of one log. */

import { address, call, hasToken } from "./api.js";
import { cleanCopies, textOf, toClipboard } from "./copy.js";
import { byId, messageOf, within } from "./dom.js";
import { fillHelp, listen } from "./keys.js";
import { LifecyclePill, size } from "./lifecycle.js";
import { Log } from "./log.js";
import { LongLine } from "./longline.js";
import { Rows } from "./rows.js";
import { Search } from "./search.js";
import { hashOf, Selection } from "./selection.js";
import { themeButton, toggleTheme } from "./theme.js";
import { askForToken } from "./token.js";

/** @typedef {import("./log.js").State} State */

/** @type {Partial<Record<State, string>>} shown in the bar */
const STATES = { live: "live", reconnecting: "reconnecting…" };
/** @type {Partial<Record<State, string>>} shown instead of the log, followed by the server's error */
const MESSAGES = {
  loading: "Loading…",
  waiting: "Waiting for the first line. This page updates automatically.",
  unavailable: "The log is temporarily unavailable. Retrying…",
  wrong: "This log cannot be shown:",
};

/** @param {string} id */
const $ = (id) => byId(id, HTMLElement);
const jobId = decodeURIComponent(location.pathname.split("/")[2]);
const number = new Intl.NumberFormat("en");
const scroller = $("log");
const layer = within(scroller, ".layer", HTMLElement);
const follow = byId("follow", HTMLButtonElement);
const help = byId("help", HTMLDialogElement);
const rawLink = byId("raw", HTMLAnchorElement);
const downloadLink = byId("download", HTMLAnchorElement);

const log = new Log(jobId, {
  state: showState,
  opened,
  grew,
  arrived: () => rows.refresh(),
  refused,
  following: () => rows.pinned,
});
const selection = new Selection(showSelection);
const rows = new Rows(scroller, {
  folds: log.folds,
  lines: log.lines,
  want: (blocks) => log.blocks.want(blocks),
  painted: () => search.highlight(),
  moved,
  decorate,
});
const search = new Search(byId("search", HTMLFormElement), {
  jobId,
  layer,
  topLine: () => rows.anchor().line,
  show: goTo,
  changed: () => rows.decorate(),
  failed: sayError,
});
const pill = new LifecyclePill(byId("phase", HTMLButtonElement), $("about"), jobId, lifecycleRead);
const longLine = new LongLine(
  byId("line", HTMLDialogElement),
  (from, to) => log.fetchRange(from, to),
  sayError,
);

// -- events of the log ----------------------------------------------------------------------

/** @param {State} state @param {string} [text] the server's error */
function showState(state, text = "") {
  document.body.dataset.state = state;
  $("state").textContent = STATES[state] ?? "";
  const message = MESSAGES[state] ?? "";
  const isBlocking = message !== "" && (state !== "unavailable" || !log.isOpen);
  $("message").hidden = !isBlocking;
  const shown = state === "waiting" ? message : `${message} ${text}`.trim();
  $("message").textContent = isBlocking ? shown : "";
  if (message && !isBlocking) say(text || message);
  follow.hidden = state !== "live" && state !== "reconnecting";
  if (state === "ended") setFollow(false);
  showFacts();
}

/** @param {boolean} again */
function opened(again) {
  pill.start();
  if (again) {
    rows.refresh(true);
    if (search.query) search.run(false);
  } else if (selection.range) goTo(selection.range.first);
  else {
    rows.scrollToEnd();
    setFollow(!log.ended);
  }
  showSelection();
  showFacts();
  if (document.activeElement === document.body) scroller.focus({ preventScroll: true });
}

function grew() {
  rows.refresh();
  search.grown();
  showFacts();
}

/** @type {string | undefined} */
let updatedBefore;

/**
 * Reopen a log that was replaced after its end, when it is no longer streamed.
 * @param {import("./lifecycle.js").LifecycleBody} body
 */
function lifecycleRead(body) {
  const isReplaced = body.aggregated_at
    ? body.bytes !== log.outline.bytes
    : body.phase === "receiving" && (updatedBefore ?? body.updated_at) !== body.updated_at;
  updatedBefore = body.updated_at;
  if (log.ended && isReplaced) log.reopen();
}

/** @param {Error} error */
async function refused(error) {
  $("message").hidden = true;
  await askForToken(error.message);
  setLinks();
  scroller.focus();
}

function showFacts() {
  if (!log.isOpen) return;
  const { lines, bytes } = log.outline;
  const count = lines === 1 ? "1 line" : `${number.format(lines)} lines`;
  $("facts").textContent = bytes ? `${count} · ${size(bytes)}` : "No output";
}

let toastTimer = 0;

/** @param {string} text shown for a few seconds */
function say(text) {
  $("toast").textContent = text;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => $("toast").replaceChildren(), 4000);
}

/** @param {unknown} error */
function sayError(error) {
  say(messageOf(error));
}

// -- scrolling ------------------------------------------------------------------------------

/** @param {boolean} atEnd @param {boolean} byUser */
function moved(atEnd, byUser) {
  if (byUser && !follow.hidden) setFollow(atEnd);
}

/** @param {boolean} on */
function setFollow(on) {
  rows.pinned = on;
  follow.setAttribute("aria-pressed", String(on));
  if (on) rows.scrollToEnd();
}

/**
 * Show a line and open the folds that hide it.
 * @param {number} line
 */
function goTo(line) {
  setFollow(false);
  const existing = Math.min(line, Math.max(log.folds.lines - 1, 0));
  const revealed = log.folds.reveal(existing);
  rows.showLine(existing, { always: revealed });
  rows.refresh(revealed);
}

/** @param {number} line @param {boolean} closed */
function setFold(line, closed) {
  const anchor = rows.anchor();
  log.folds.set(line, closed);
  rows.pinned = false;
  rows.restore(anchor);
}

/** @param {boolean} closed */
function setAllFolds(closed) {
  const anchor = rows.anchor();
  log.folds.setAll(closed);
  rows.restore(anchor);
  labelFoldsButton();
}

/** Label the button with what it does; returns whether it opens all folds. */
function labelFoldsButton() {
  const opens = [...log.folds.headers.values()].some((fold) => fold.closed);
  $("folds").setAttribute("aria-label", opens ? "Open all folds" : "Close all folds");
  return opens;
}

/** @param {Element | null | undefined} element @returns {HTMLElement | null} its row */
function rowOf(element) {
  const row = element?.closest(".row");
  return row instanceof HTMLElement ? row : null;
}

/**
 * Focus the next (1) or previous (-1) fold from the focused one, or from the top of the window.
 * @param {1 | -1} by
 */
function stepFold(by) {
  const from = Number(rowOf(document.activeElement)?.dataset.line ?? rows.anchor().line);
  const starts = [...log.folds.headers.keys()].filter((line) => !log.folds.isHidden(line));
  starts.sort((a, b) => by * (a - b));
  const line = starts.find((start) => by * (start - from) > 0);
  if (line === undefined) return;
  rows.pinned = false;
  rows.showLine(line);
  requestAnimationFrame(() => requestAnimationFrame(() => rows.focusLine(line)));
}

// -- rows -----------------------------------------------------------------------------------

/** @param {HTMLElement} row @param {number} line */
function decorate(row, line) {
  row.classList.toggle("selected", selection.has(line));
  row.classList.toggle("found", search.found.has(line));
  row.classList.toggle("here", search.line === line);
}

layer.addEventListener("click", (event) => {
  const target = event.target instanceof Element ? event.target : null;
  const row = rowOf(target);
  if (!target || !row) return;
  const line = Number(row.dataset.line);
  const fold = log.folds.headers.get(line);
  if (target.closest(".number")) {
    if (event.ctrlKey || event.metaKey) return; // opens a new tab
    event.preventDefault();
    selection.pick(line, event.shiftKey);
  } else if (target.closest(".more")) {
    const place = log.lines.place(line);
    if (place) longLine.open(line, place);
  } else if (fold && getSelection()?.isCollapsed) setFold(line, !fold.closed);
});

// A click with Shift would select all text in between.
layer.addEventListener("mousedown", (event) => {
  const isNumber = event.target instanceof Element && event.target.closest(".number");
  if (event.shiftKey && isNumber) event.preventDefault();
});

addEventListener("hashchange", () => {
  selection.follow();
  if (selection.range) goTo(selection.range.first);
});

function showSelection() {
  const { range, count } = selection;
  $("selected").hidden = !range;
  if (range) {
    const [first, last] = [range.first + 1, range.last + 1];
    $("range").textContent = count === 1 ? `Line ${first}` : `Lines ${first}–${last}`;
  }
  rows.decorate();
}

// -- copying and downloading ----------------------------------------------------------------

async function copyLines() {
  const range = selection.range ?? { first: 0, last: Math.max(log.folds.lines - 1, 0) };
  const lines = selection.count === 1 ? "1 line" : `${selection.count} lines`;
  try {
    await toClipboard(log.folds.lines ? await textOf(log.lines, range.first, range.last) : "");
    say(selection.range ? `Copied ${lines}` : "Copied the log");
  } catch (error) {
    sayError(error);
  }
}

async function copyLink() {
  const hash = selection.range ? hashOf(selection.range) : "";
  await toClipboard(location.origin + location.pathname + location.search + hash).then(
    () => say("Copied the link"),
    sayError,
  );
}

function setLinks() {
  rawLink.href = address(`/logs/${jobId}/raw`);
  downloadLink.href = address(`/logs/${jobId}/raw`, { download: "" });
}

/**
 * Fetch the log for a link if a token is needed, which links cannot send.
 * @param {Event} event
 * @param {(url: string) => void} use
 */
async function fetchLink(event, use) {
  if (!hasToken()) return;
  event.preventDefault();
  say("Loading the log…");
  try {
    const response = await call(`/logs/${jobId}/raw`);
    const blob = new Blob([await response.arrayBuffer()], { type: "text/plain;charset=utf-8" });
    use(URL.createObjectURL(blob));
    say("");
  } catch (error) {
    sayError(error);
  }
}

rawLink.addEventListener("click", (event) => {
  const tab = hasToken() ? open("about:blank") : null; // opened later, it would count as a pop-up
  fetchLink(event, (url) => tab?.location.assign(url));
});
downloadLink.addEventListener("click", (event) =>
  fetchLink(event, (url) => {
    const link = document.createElement("a");
    link.href = url;
    link.download = `job-${jobId}.log`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }),
);

// -- keys and buttons -----------------------------------------------------------------------

const actions = {
  search: () => search.focus(),
  next: () => search.step(1),
  previous: () => search.step(-1),
  down: () => rows.scrollBy(1),
  up: () => rows.scrollBy(-1),
  pageDown: () => rows.scrollBy(rows.pageRows),
  pageUp: () => rows.scrollBy(-rows.pageRows),
  top: () => rows.scrollBy(-Infinity),
  end: () => rows.scrollBy(Infinity),
  follow: () => follow.hidden || setFollow(!rows.pinned),
  nextFold: () => stepFold(1),
  previousFold: () => stepFold(-1),
  openAll: () => setAllFolds(false),
  closeAll: () => setAllFolds(true),
  copy: copyLines,
  copyLink,
  about: () => pill.toggle(),
  theme: toggleTheme,
  escape: () => ($("about").hidden ? selection.clear() : pill.toggle(false)),
  help: () => help.showModal(),
};

$("job").textContent = jobId;
document.title = `Job ${jobId} · logflume`;
follow.addEventListener("click", actions.follow);
$("folds").addEventListener("click", () => setAllFolds(!labelFoldsButton()));
$("copy").addEventListener("click", copyLines);
$("copy-lines").addEventListener("click", copyLines);
$("copy-link").addEventListener("click", copyLink);
$("clear").addEventListener("click", () => selection.clear());
$("keys").addEventListener("click", actions.help);
themeButton($("theme"));
fillHelp(within(help, "table", HTMLTableElement));
listen(actions);
cleanCopies(layer);
setLinks();
log.open();
