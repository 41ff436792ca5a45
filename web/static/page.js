/** The page of one log. */

import { chosenAttempt } from "./api.js";
import { AttemptMenu } from "./attempts.js";
import { Copying, toClipboard } from "./copy.js";
import { byId, messageOf, within } from "./dom.js";
import { RawLinks } from "./download.js";
import { Edges } from "./edges.js";
import { Errors } from "./errors.js";
import { FoldKeys } from "./foldkeys.js";
import { Following } from "./following.js";
import { fillHelp, listen } from "./keys.js";
import { LifecyclePill, size } from "./lifecycle.js";
import { Log } from "./log.js";
import { LongLine } from "./longline.js";
import { Rows } from "./rows.js";
import { Search } from "./search.js";
import { hashOf, Selection } from "./selection.js";
import { Status } from "./status.js";
import { Steps } from "./steps.js";
import { printLight, themeButton, toggleTheme } from "./theme.js";
import { askForToken } from "./token.js";
import { showView } from "./views.js";
import { Wrap } from "./wrap.js";

/** @typedef {import("./log.js").State} State */

/** @type {Partial<Record<State, string>>} shown in the bar */
const STATES = { live: "live", reconnecting: "reconnecting…", expired: "link expired" };

/** @param {string} id */
const $ = (id) => byId(id, HTMLElement);
const jobId = location.pathname.split("/")[2]; // still encoded if it is not a number
const number = new Intl.NumberFormat("en");
const scroller = $("log");
const layer = within(scroller, ".layer", HTMLElement);
const help = byId("help", HTMLDialogElement);

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
  painted,
  moved: (by) => following.moved(by),
  decorate,
});
const below = byId("below", HTMLButtonElement);
const following = new Following(rows, byId("follow", HTMLButtonElement), below);
const foldKeys = new FoldKeys(log.folds, rows, following, $("folds"));
const steps = new Steps(log, goTo);
const copying = new Copying(layer, log.lines, (line) => log.folds.isBare(line), say);
const search = new Search(byId("search", HTMLFormElement), {
  jobId,
  layer,
  topLine: () => rows.anchor().line,
  show: goTo,
  reveal: (range) => rows.reveal(range),
  showMore: (line) => rows.showMore(line),
  showWhole,
  changed: () => rows.decorate(),
  failed: sayError,
});
const attempts = new AttemptMenu(byId("attempt", HTMLSelectElement));
const status = new Status(log);
const edges = new Edges(scroller, layer);
const errors = new Errors(log, rows, search, goTo);
const wrap = new Wrap(rows, byId("wrap", HTMLButtonElement));
const pill = new LifecyclePill(byId("phase", HTMLButtonElement), $("about"), jobId, lifecycleRead);
const links = new RawLinks(
  jobId,
  byId("raw", HTMLAnchorElement),
  byId("download", HTMLAnchorElement),
  say,
  sayError,
);
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
  $("state").title = text;
  // Rows that are there stay in view.
  const isInterrupted = ["unavailable", "expired"].includes(state) && log.isOpen;
  const isEmpty = state === "ended" && !log.outline.bytes;
  if (!isInterrupted) showView($("message"), isEmpty ? "empty" : state, text);
  else say(text || "The log is temporarily unavailable. Retrying…");
  // The details of a log whose text is gone are still there.
  if (state === "gone") pill.start();
  following.live = state === "live" || state === "reconnecting";
  if (state === "ended") following.set(false);
  status.update();
  showFacts();
}

/** @param {boolean} again */
function opened(again) {
  pill.start();
  status.reset();
  steps.reset();
  if (!again) errors.openFold();
  following.reset(log.outline.lines);
  if (again) {
    rows.refresh(true);
    if (search.query) search.run(false);
  } else if (selection.range) goToSelection();
  else {
    rows.scrollToEnd();
    following.set(!log.ended);
  }
  showSelection();
  showFacts();
  if (document.activeElement === document.body) scroller.focus({ preventScroll: true });
}

function grew() {
  rows.refresh();
  status.grew();
  steps.changed();
  search.grown();
  following.grew(log.outline.lines);
  const { range } = selection;
  if (isAwaited && range && (log.ended || range.first < log.outline.lines)) goToSelection();
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
  if (log.ended && isReplaced && chosenAttempt === null) log.reopen();
  attempts.update(body.attempts);
  $("notice").hidden = body.phase !== "stuck";
  $("reason").textContent = body.last_error ? `: ${body.last_error}` : "";
}

/** @param {Error} error */
async function refused(error) {
  if (/^the link expired/.test(error.message)) {
    showState("expired", error.message);
    await new Promise(() => {}); // a retry would fail too
  }
  $("message").hidden = true;
  await askForToken(error.message);
  links.update();
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

/**
 * Show a line and open the folds that hide it.
 * @param {number} line
 */
function goTo(line) {
  following.set(false);
  const existing = Math.min(line, Math.max(log.folds.lines - 1, 0));
  const revealed = log.folds.reveal(existing);
  rows.showLine(existing, { always: revealed });
  rows.refresh(revealed);
}

let isAwaited = false; // the first selected line has not arrived yet

/** Show the first selected line, now or as soon as it arrives. */
function goToSelection() {
  const { range } = selection;
  isAwaited = range !== null && range.first >= log.outline.lines && !log.ended;
  if (isAwaited) following.set(true);
  else if (range) goTo(range.first);
  showSelection();
}

function painted() {
  const top = rows.anchor().line;
  status.moved(top);
  steps.moved(top);
  edges.update();
  errors.update();
  search.highlight();
  copying.redrawn();
}

// -- rows -----------------------------------------------------------------------------------

/** @param {HTMLElement} row @param {number} line */
function decorate(row, line) {
  row.classList.toggle("selected", selection.has(line));
  row.classList.toggle("found", search.found.has(line));
  row.classList.toggle("error", errors.has(line));
  row.classList.toggle("here", search.line === line || errors.line === line);
}

layer.addEventListener("click", (event) => {
  const target = event.target instanceof Element ? event.target : null;
  const row = target?.closest(".row");
  if (!target || !(row instanceof HTMLElement)) return;
  const line = Number(row.dataset.line);
  const fold = log.folds.headers.get(line);
  if (target.closest(".text a")) return;
  if (target.closest(".number")) {
    if (event.ctrlKey || event.metaKey) return; // opens a new tab
    event.preventDefault();
    selection.pick(line, event.shiftKey);
  } else if (target.closest(".more")) {
    showWhole(line);
  } else if (fold && getSelection()?.isCollapsed) foldKeys.set(line, !fold.closed);
});

/** @param {number} line @param {(body: Element) => Range[]} [find] */
function showWhole(line, find) {
  const place = log.lines.place(line);
  if (place) longLine.open(line, place, find);
}

// A click with Shift would select all text in between.
layer.addEventListener("mousedown", (event) => {
  const isNumber = event.target instanceof Element && event.target.closest(".number");
  if (event.shiftKey && isNumber) event.preventDefault();
});

addEventListener("hashchange", () => {
  selection.follow();
  goToSelection();
});

function showSelection() {
  const { range, count } = selection;
  $("selected").hidden = !range;
  if (range) {
    const [first, last] = [range.first + 1, range.last + 1];
    const name = count === 1 ? `Line ${first}` : `Lines ${first}–${last}`;
    const isMissing = log.isOpen && range.first >= log.outline.lines;
    const why = log.ended ? "the log is shorter" : "waiting for it to arrive";
    $("range").textContent = isMissing ? `${name}: ${why}` : name;
  }
  rows.decorate();
}

// -- copying and downloading ----------------------------------------------------------------

/** Copy the selected text, or the selected lines, or the log. */
async function copyLines() {
  const { range } = selection;
  const lines = range ? copying.spanOf(range.first, range.last) : copying.spanOf(0, Infinity);
  if (log.outline.lines) await copying.copy(copying.span ?? lines).catch(sayError);
}

async function copyLink() {
  const hash = selection.range ? hashOf(selection.range) : "";
  await toClipboard(location.origin + location.pathname + location.search + hash).then(
    () => say("Copied the link"),
    sayError,
  );
}

// -- keys and buttons -----------------------------------------------------------------------

function clearSelection() {
  if (!$("about").hidden) pill.toggle(false);
  else if (!$("steps").hidden) steps.toggle(false);
  else if (copying.span) getSelection()?.removeAllRanges();
  else selection.clear();
}

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
  follow: () => following.toggle(),
  steps: () => steps.toggle(),
  nextError: () => errors.step(1),
  previousError: () => errors.step(-1),
  nextStep: () => foldKeys.step(1),
  previousStep: () => foldKeys.step(-1),
  openAll: () => foldKeys.setAll(false),
  closeAll: () => foldKeys.setAll(true),
  copy: copyLines,
  selectAll: () => copying.selectAll(),
  copyLink,
  about: () => pill.toggle(),
  theme: toggleTheme,
  wrap: () => wrap.toggle(),
  escape: clearSelection,
  help: () => help.showModal(),
};

$("job").textContent = jobId;
$("copy").addEventListener("click", copyLines);
$("copy-lines").addEventListener("click", copyLines);
$("copy-link").addEventListener("click", copyLink);
$("clear").addEventListener("click", () => selection.clear());
$("keys").addEventListener("click", actions.help);
themeButton($("theme"));
printLight();
fillHelp(within(help, "table", HTMLTableElement));
listen(actions);
log.open();
