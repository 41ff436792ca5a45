/** The front page: logs by phase, the newest first, and the way to a job's log by its id. */

import { callJson } from "./api.js";
import { size, when } from "./lifecycle.js";
import { themeButton } from "./theme.js";
import { askForToken } from "./token.js";

// Those that last; the others are over in an instant, and Temporal is not told of them.
const PHASES = ["receiving", "archiving", "verified", "done", "stuck"];
const LIMIT = "50";
const POLL_MS = 10_000;

const $ = (id) => document.getElementById(id);
const body = $("logs").tBodies[0];
const number = new Intl.NumberFormat("en");
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });

let phase = new URLSearchParams(location.search).get("phase") ?? "";
let next = null;
let loaded = 0; // pages; only the first is kept fresh
let run = {};
let timer = 0;

function ago(text) {
  const seconds = (new Date(text) - Date.now()) / 1000;
  for (const [unit, length] of [
    ["day", 86_400],
    ["hour", 3600],
    ["minute", 60],
  ]) {
    if (Math.abs(seconds) >= length) return relative.format(Math.round(seconds / length), unit);
  }
  return relative.format(Math.min(Math.round(seconds), 0), "second");
}

function cell(row, content, className) {
  const made = row.insertCell();
  made.append(content);
  if (className) made.className = className;
  return made;
}

function timeCell(row, text) {
  const time = document.createElement("time");
  time.dateTime = text;
  time.title = when(text);
  time.textContent = ago(text);
  cell(row, time, "time");
}

function rowOf(log) {
  const row = document.createElement("tr");
  const link = document.createElement("a");
  link.href = `/jobs/${encodeURIComponent(log.job_id)}`;
  link.textContent = log.job_id;
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

function say(text) {
  $("message").hidden = !text;
  $("message").textContent = text;
}

/** Load the first page, or with `older` the one after what is shown. */
async function load(older = false) {
  const mine = (run = {});
  clearTimeout(timer);
  const params = { limit: LIMIT };
  if (phase) params.phase = phase;
  if (older && next !== null) params.before = next;
  try {
    const answer = await callJson("/logs", { params });
    if (mine !== run) return;
    const rows = answer.logs.map(rowOf);
    if (older) body.append(...rows);
    else body.replaceChildren(...rows);
    loaded = older ? loaded + 1 : 1;
    next = answer.next;
    $("logs").hidden = !body.rows.length;
    $("more").hidden = next === null;
    say(body.rows.length ? "" : phase ? `No log is ${phase}.` : "There are no logs yet.");
  } catch (error) {
    if (mine !== run) return;
    if (error.status === 403) {
      $("logs").hidden = $("more").hidden = true;
      say("");
      await askForToken(error.message);
      load();
      return;
    }
    say(`The list cannot be read just now: ${error.message}. Trying again…`);
  }
  timer = setTimeout(refresh, POLL_MS);
}

function refresh() {
  // Someone who reads on further down is not to lose the place.
  if (!document.hidden && loaded <= 1) load();
  else timer = setTimeout(refresh, POLL_MS);
}

function choose(name) {
  phase = name;
  history.replaceState(null, "", name ? `/?phase=${encodeURIComponent(name)}` : "/");
  for (const button of $("phases").children) {
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
  $("phases").append(button);
}

$("go").addEventListener("submit", (event) => {
  event.preventDefault();
  const id = event.target.elements.namedItem("job").value.trim();
  const said = event.target.querySelector("output");
  said.textContent = /^\d{1,19}$/.test(id) ? "" : "a job id is a number";
  if (!said.textContent) location.assign(`/jobs/${id}`);
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target instanceof HTMLInputElement) return;
  event.preventDefault();
  $("go").elements.namedItem("job").focus();
});
$("more").addEventListener("click", () => load(true));
document.addEventListener("visibilitychange", () => document.hidden || refresh());
themeButton($("theme"));
if (phase && !PHASES.includes(phase)) phase = "";
choose(phase);
