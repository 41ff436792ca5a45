/** The front page: logs by phase, newest first, and a form to open a job's log by id. */

import { apiError, callJson } from "./api.js";
import { byId, inputOf, within } from "./dom.js";
import { size, when } from "./lifecycle.js";
import { themeButton } from "./theme.js";
import { askForToken } from "./token.js";

/**
 * @typedef {object} ListedLog a log in the response of `/logs`
 * @property {number} job_id
 * @property {string} phase
 * @property {number | null} bytes
 * @property {number | null} parts
 * @property {string} created_at
 * @property {string} updated_at
 * @property {string | null} removed_at
 */

// The lasting phases; the others take an instant and are not in Temporal's search attributes.
const PHASES = ["receiving", "archiving", "verified", "done", "stuck"];
const LIMIT = "50";
const POLL_MS = 10_000;

/** @type {[unit: Intl.RelativeTimeFormatUnit, seconds: number][]} */
const UNITS = [
  ["day", 86_400],
  ["hour", 3600],
  ["minute", 60],
];

const table = byId("logs", HTMLTableElement);
const body = table.tBodies[0];
const message = byId("message", HTMLElement);
const more = byId("more", HTMLButtonElement);
const phases = byId("phases", HTMLElement);
const search = byId("go", HTMLFormElement);
const number = new Intl.NumberFormat("en");
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });

let phase = new URLSearchParams(location.search).get("phase") ?? "";
/** @type {string | null} the `before` of the next page */
let next = null;
let loaded = 0; // pages; only the first one is refreshed
let run = {}; // identifies the latest call of load
let timer = 0;

/** @param {string} text a time of the API */
function ago(text) {
  const seconds = (new Date(text).getTime() - Date.now()) / 1000;
  for (const [unit, length] of UNITS) {
    if (Math.abs(seconds) >= length) return relative.format(Math.round(seconds / length), unit);
  }
  return relative.format(Math.min(Math.round(seconds), 0), "second");
}

/** @param {HTMLTableRowElement} row @param {string | Node} content @param {string} [className] */
function cell(row, content, className) {
  const element = row.insertCell();
  element.append(content);
  if (className) element.className = className;
  return element;
}

/** @param {HTMLTableRowElement} row @param {string} text a time of the API */
function timeCell(row, text) {
  const time = document.createElement("time");
  time.dateTime = text;
  time.title = when(text);
  time.textContent = ago(text);
  cell(row, time, "time");
}

/** @param {ListedLog} log */
function rowOf(log) {
  const row = document.createElement("tr");
  row.dataset.job = String(log.job_id);
  const link = document.createElement("a");
  link.href = `/jobs/${encodeURIComponent(log.job_id)}`;
  link.textContent = String(log.job_id);
  cell(row, link, "id");
  const pill = document.createElement("span");
  pill.className = "pill";
  pill.dataset.phase = log.phase;
  pill.textContent = log.phase;
  const phaseCell = cell(row, pill);
  if (log.removed_at) phaseCell.append(" removed");
  cell(row, log.bytes === null ? "–" : size(log.bytes), "right");
  cell(row, log.parts === null ? "–" : number.format(log.parts), "right");
  timeCell(row, log.created_at);
  timeCell(row, log.updated_at);
  return row;
}

/**
 * Show logs in rows, of which those of the same jobs are updated: a new one would lose the focus.
 * @param {ListedLog[]} logs
 */
function update(logs) {
  const old = new Map([...body.rows].map((row) => [row.dataset.job, row]));
  const rows = logs.map((log) => {
    const made = rowOf(log);
    const row = old.get(made.dataset.job);
    if (!row) return made;
    for (const [at, cell] of [...made.cells].entries()) {
      if (!cell.isEqualNode(row.cells[at])) row.cells[at].replaceWith(cell);
    }
    return row;
  });
  for (const row of [...body.rows]) if (!rows.includes(row)) row.remove();
  let next = body.firstChild;
  for (const row of rows) {
    if (row === next) next = next.nextSibling;
    else body.insertBefore(row, next);
  }
}

/** @param {string} text */
function say(text) {
  message.hidden = !text;
  message.textContent = text;
}

/** Load the first page, or with `older` the page after those shown. */
async function load(older = false) {
  const own = {};
  run = own;
  clearTimeout(timer);
  /** @type {Record<string, string>} */
  const params = { limit: LIMIT };
  if (phase) params.phase = phase;
  if (older && next !== null) params.before = next;
  try {
    const response = await callJson("/logs", { params });
    if (own !== run) return;
    if (older) body.append(...response.logs.map(rowOf));
    else update(response.logs);
    loaded = older ? loaded + 1 : 1;
    next = response.next;
    table.hidden = !body.rows.length;
    more.hidden = next === null;
    say(body.rows.length ? "" : phase ? `No log is ${phase}.` : "No logs yet.");
  } catch (thrown) {
    if (own !== run) return;
    const error = apiError(thrown);
    if (error.status === 403) {
      table.hidden = true;
      more.hidden = true;
      say("");
      await askForToken(error.message);
      load();
      return;
    }
    say(`Cannot load the list: ${error.message}. Retrying…`);
  }
  timer = setTimeout(refresh, POLL_MS);
}

function refresh() {
  // A refresh would discard the older pages that a reader has loaded.
  if (!document.hidden && loaded <= 1) load();
  else timer = setTimeout(refresh, POLL_MS);
}

/** @param {string} name a phase, or empty for all */
function choose(name) {
  phase = name;
  history.replaceState(null, "", name ? `/?phase=${encodeURIComponent(name)}` : "/");
  for (const button of phases.querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.dataset.phase === name));
  }
  load();
}

for (const name of ["", ...PHASES]) {
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.phase = name;
  button.textContent = name || "all";
  button.addEventListener("click", () => choose(name));
  phases.append(button);
}

search.addEventListener("submit", (event) => {
  event.preventDefault();
  const id = inputOf(search, "job").value.trim();
  const isNumber = /^\d{1,19}$/.test(id);
  within(search, "output", HTMLElement).textContent = isNumber ? "" : "a job id is a number";
  if (isNumber) location.assign(`/jobs/${id}`);
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target instanceof HTMLInputElement) return;
  event.preventDefault();
  inputOf(search, "job").focus();
});
more.addEventListener("click", () => load(true));
document.addEventListener("visibilitychange", () => document.hidden || refresh());
themeButton(byId("theme", HTMLElement));
if (phase && !PHASES.includes(phase)) phase = "";
choose(phase);
