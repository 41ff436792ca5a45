/** What is shown instead of a log: what the matter is, why, and the next step. */

/** @typedef {import("./log.js").State} State */
/** @typedef {{title: string, reason?: string, next?: string}} View */

/** @type {Partial<Record<State, View>>} without a reason, the server's error is shown */
const VIEWS = {
  loading: { title: "Loading…", reason: "" },
  waiting: {
    title: "Waiting for the first line",
    reason: "No output of this job has arrived. It has not started yet, or its id is wrong.",
    next: "This page updates automatically.",
  },
  unavailable: {
    title: "The log is temporarily unavailable",
    next: "Nothing is lost. This page retries automatically.",
  },
  wrong: {
    title: "This log cannot be shown",
    next: "Check the address: it ends with the number of a job.",
  },
  gone: {
    title: "The text of this log is gone",
    next: "Restart the job for a new log. The details (i) say what happened to this one.",
  },
  expired: { title: "The link has expired", next: "Ask for a new link." },
  empty: {
    title: "The job ended without output",
    reason: "It sent no text, or its text was removed. The details (i) say which.",
    next: "Look at the job itself: it may have failed before its first command.",
  },
};

/**
 * Show the view of a state, if it has one.
 * @param {HTMLElement} element
 * @param {State} state
 * @param {string} text the server's error
 */
export function showView(element, state, text) {
  const view = VIEWS[state];
  element.hidden = !view;
  element.replaceChildren();
  if (!view) return;
  const title = document.createElement("h2");
  title.textContent = view.title;
  element.append(title);
  for (const line of [view.reason ?? text, view.next]) {
    if (!line) continue;
    const paragraph = document.createElement("p");
    paragraph.textContent = line;
    element.append(paragraph);
  }
}
