/** The page of one log, put together of its parts. */

import { address, call, hasToken } from "./api.js";
import { cleanCopies, textOf, toClipboard } from "./copy.js";
import { fillHelp, listen } from "./keys.js";
import { LifecyclePill, size } from "./lifecycle.js";
import { Log } from "./log.js";
import { LongLine } from "./longline.js";
import { Rows } from "./rows.js";
import { Search } from "./search.js";
import { hashOf, Selection } from "./selection.js";
import { themeButton, toggleTheme } from "./theme.js";
import { askForToken } from "./token.js";

const $ = (id) => document.getElementById(id);
const jobId = decodeURIComponent(location.pathname.split("/")[2]);
const number = new Intl.NumberFormat("en");
const scroller = $("log");
const layer = scroller.querySelector(".layer");
const STATES = { live: "live", reconnecting: "reconnecting…" };
const MESSAGES = {
  loading: "Loading…",
  waiting: "Waiting for the first line. This page goes on by itself.",
  unavailable: "The log cannot be read just now. Trying again…",
  wrong: "There can be no such log.",
};

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
  painted: () => search.mark(),
  moved,
  decorate,
});
const search = new Search($("search"), {
  jobId,
  layer,
  topLine: () => rows.anchor().line,
  show: goTo,
  changed: () => rows.decorate(),
  failed: (error) => say(error.message),
});
const pill = new LifecyclePill($("phase"), $("about"), jobId, lived);
const longLine = new LongLine(
  $("line"),
  (from, to) => log.fetchRange(from, to),
  (e) => say(e.message),
);

// -- what the log tells ---------------------------------------------------------------------

function showState(state, text) {
  document.body.dataset.state = state;
  $("state").textContent = STATES[state] ?? "";
  const message = MESSAGES[state];
  const blocking = message && (state !== "unavailable" || !log.outline);
  $("message").hidden = !blocking;
  $("message").textContent = blocking ? [message, state === "waiting" ? "" : text].join(" ") : "";
  if (message && !blocking) say(text || message);
  $("follow").hidden = state !== "live" && state !== "reconnecting";
  if (state === "ended") setFollow(false);
  showFacts();
}

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

/** A log that ended is no longer streamed: that it is another one now is told by its life. */
function lived(body) {
  const isOther = body.aggregated_at
    ? body.bytes !== log.outline.bytes
    : body.phase === "receiving" && (lived.before ?? body.updated_at) !== body.updated_at;
  lived.before = body.updated_at;
  if (log.ended && isOther) log.reopen();
}

async function refused(error) {
  $("message").hidden = true;
  await askForToken(error.message);
  setLinks();
  scroller.focus();
}

function showFacts() {
  const { outline } = log;
  if (!outline) return;
  const lines = outline.lines === 1 ? "1 line" : `${number.format(outline.lines)} lines`;
  $("facts").textContent = outline.bytes ? `${lines} · ${size(outline.bytes)}` : "No output";
}

function say(text) {
  $("toast").textContent = text;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => ($("toast").textContent = ""), 4000);
}

// -- moving ---------------------------------------------------------------------------------

function moved(atEnd, byUser) {
  if (!byUser) return;
  if (!$("follow").hidden) setFollow(atEnd);
}

function setFollow(on) {
  rows.pinned = on;
  $("follow").setAttribute("aria-pressed", String(on));
  if (on) rows.scrollToEnd();
}

/** Show a line, opening what it is folded into. */
function goTo(line) {
  setFollow(false);
  const known = Math.min(line, Math.max(log.folds.lines - 1, 0));
  const opened = log.folds.reveal(known);
  rows.showLine(known, { always: opened });
  rows.refresh(opened);
}

function toggleFold(line, closed) {
  const anchor = rows.anchor();
  log.folds.set(line, closed);
  rows.pinned = false;
  rows.restore(anchor);
}

function setAllFolds(closed) {
  const anchor = rows.anchor();
  log.folds.setAll(closed);
  rows.restore(anchor);
  showFoldsButton();
}

function showFoldsButton() {
  const closed = [...log.folds.headers.values()].some((fold) => fold.closed);
  $("folds").setAttribute("aria-label", closed ? "Open all folds" : "Close all folds");
  return closed;
}

/** To the next fold from the one with the focus, or from the top of the window. */
function stepFold(by) {
  const from = Number(
    document.activeElement?.closest?.(".row")?.dataset.line ?? rows.anchor().line,
  );
  const starts = [...log.folds.headers.keys()].filter((line) => !log.folds.isHidden(line));
  starts.sort((a, b) => by * (a - b));
  const line = starts.find((start) => by * (start - from) > 0);
  if (line === undefined) return;
  rows.pinned = false;
  rows.showLine(line);
  requestAnimationFrame(() => requestAnimationFrame(() => rows.focusLine(line)));
}

// -- rows -----------------------------------------------------------------------------------

function decorate(row, line) {
  row.classList.toggle("selected", selection.has(line));
  row.classList.toggle("found", search.found.has(line));
  row.classList.toggle("here", search.line === line);
}

layer.addEventListener("click", (event) => {
  const row = event.target.closest(".row");
  if (!row) return;
  const line = Number(row.dataset.line);
  if (event.target.closest(".number")) {
    if (event.ctrlKey || event.metaKey) return; // a link in a new tab, as everywhere
    event.preventDefault();
    selection.pick(line, event.shiftKey);
  } else if (event.target.closest(".more")) {
    const place = log.lines.place(line);
    if (place) longLine.open(line, place);
  } else if (row.fold && getSelection().isCollapsed) {
    toggleFold(line, !row.fold.closed);
  }
});

// Shift and click would select all text in between.
layer.addEventListener("mousedown", (event) => {
  if (event.shiftKey && event.target.closest(".number")) event.preventDefault();
});

addEventListener("hashchange", () => {
  selection.follow();
  if (selection.range) goTo(selection.range.first);
});

function showSelection() {
  const { range, count } = selection;
  $("selected").hidden = !range;
  if (range) {
    const lines =
      count === 1 ? `Line ${range.first + 1}` : `Lines ${range.first + 1}–${range.last + 1}`;
    $("range").textContent = lines;
  }
  rows.decorate();
}

// -- copying and loading --------------------------------------------------------------------

async function copyLines() {
  const range = selection.range ?? { first: 0, last: Math.max(log.folds.lines - 1, 0) };
  try {
    await toClipboard(log.folds.lines ? await textOf(log.lines, range.first, range.last) : "");
    say(
      selection.range
        ? `Copied ${selection.count === 1 ? "a line" : `${selection.count} lines`}`
        : "Copied the log",
    );
  } catch (error) {
    say(error.message);
  }
}

async function copyLink() {
  const hash = selection.range ? hashOf(selection.range) : "";
  await toClipboard(location.origin + location.pathname + location.search + hash).then(
    () => say("Copied the link"),
    (error) => say(error.message),
  );
}

function setLinks() {
  $("raw").href = address(`/logs/${jobId}/raw`);
  $("download").href = address(`/logs/${jobId}/raw`, { download: "" });
}

/** A link cannot send a token: the page then fetches the bytes itself. */
async function fetchLink(event, use) {
  if (!hasToken()) return;
  event.preventDefault();
  say("Loading the log…");
  try {
    const answer = await call(`/logs/${jobId}/raw`);
    use(
      URL.createObjectURL(
        new Blob([await answer.arrayBuffer()], { type: "text/plain;charset=utf-8" }),
      ),
    );
    say("");
  } catch (error) {
    say(error.message);
  }
}

$("raw").addEventListener("click", (event) => {
  const tab = hasToken() ? open("about:blank") : null; // now: later it would count as a pop-up
  fetchLink(event, (url) => tab && (tab.location = url));
});
$("download").addEventListener("click", (event) =>
  fetchLink(event, (url) => {
    const link = document.createElement("a");
    link.href = url;
    link.download = `job-${jobId}.log`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }),
);

// -- the rest -------------------------------------------------------------------------------

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
  follow: () => !$("follow").hidden && setFollow(!rows.pinned),
  nextFold: () => stepFold(1),
  previousFold: () => stepFold(-1),
  openAll: () => setAllFolds(false),
  closeAll: () => setAllFolds(true),
  copy: copyLines,
  copyLink,
  about: () => pill.toggle(),
  theme: toggleTheme,
  escape: () => ($("about").hidden ? selection.clear() : pill.toggle(false)),
  help: () => $("help").showModal(),
};

$("job").textContent = jobId;
document.title = `Job ${jobId} · logflume`;
$("follow").addEventListener("click", actions.follow);
$("folds").addEventListener("click", () => setAllFolds(!showFoldsButton()));
$("copy").addEventListener("click", copyLines);
$("copy-lines").addEventListener("click", copyLines);
$("copy-link").addEventListener("click", copyLink);
$("clear").addEventListener("click", () => selection.clear());
$("keys").addEventListener("click", actions.help);
themeButton($("theme"));
fillHelp($("help").querySelector("table"));
listen(actions);
cleanCopies(layer);
setLinks();
log.open();
