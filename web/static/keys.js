/** The keyboard: one table for both the shortcuts and the help. */

/** @type {[keys: string[], action: string | null, help: string][]} */
const KEYS = [
  [["/"], "search", "Search the whole log"],
  [["n"], "next", "Next match"],
  [["N", "p"], "previous", "Previous match"],
  [["j", "ArrowDown"], "down", "Down one row"],
  [["k", "ArrowUp"], "up", "Up one row"],
  [[" ", "PageDown"], "pageDown", "Down one page"],
  [["b", "PageUp"], "pageUp", "Up one page"],
  [["g", "Home"], "top", "Go to the top"],
  [["G", "End"], "end", "Go to the end"],
  [["f"], "follow", "Follow a live log, or stop"],
  [["s"], "steps", "Show or hide the steps"],
  [["]"], "nextStep", "Next step"],
  [["["], "previousStep", "Previous step"],
  [["e"], "nextError", "Next error"],
  [["E"], "previousError", "Previous error"],
  [["Enter"], null, "Open or close the focused fold"],
  [["o"], "openAll", "Open all folds"],
  [["c"], "closeAll", "Close all folds"],
  [["y"], "copy", "Copy the selected text or lines, or the log"],
  [["Ctrl-A"], "selectAll", "Select the whole log"],
  [["l"], "copyLink", "Copy a link to the selected lines"],
  [["i"], "about", "Log details"],
  [["w"], "wrap", "Wrap long lines, or not"],
  [["t"], "theme", "Switch theme"],
  [["Escape"], "escape", "Close the details, or clear the selection"],
  [["?"], "help", "Keyboard help"],
];
/** @type {Record<string, string>} */
const NAMES = {
  " ": "Space",
  ArrowDown: "↓",
  ArrowUp: "↑",
  PageDown: "PgDn",
  PageUp: "PgUp",
  Escape: "Esc",
};

/**
 * Run the action of a key, except in inputs and dialogs.
 * @param {Record<string, () => unknown>} actions
 */
export function listen(actions) {
  document.addEventListener("pointerdown", () => document.body.classList.remove("tabbing"));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Tab") document.body.classList.add("tabbing");
    const focused = document.activeElement;
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "f") {
      // The browser's search sees only the rendered rows; pressing Ctrl-F again opens it.
      if (focused instanceof HTMLInputElement && focused.name === "q") return;
      event.preventDefault();
      actions.search();
      return;
    }
    const { target } = event;
    const isInput = target instanceof HTMLInputElement || document.querySelector("dialog[open]");
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "a" && !isInput) {
      event.preventDefault();
      actions.selectAll();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || isInput) return;
    const isControl = target instanceof Element && target.closest("button, a, summary");
    if ((event.key === " " || event.key === "Enter") && isControl) return;
    const action = KEYS.find(([keys]) => keys.includes(event.key))?.[1];
    if (!action || event.defaultPrevented) return;
    event.preventDefault();
    actions[action]();
  });
}

/**
 * Fill the help.
 * @param {HTMLTableElement} table
 */
export function fillHelp(table) {
  for (const [keys, , help] of KEYS) {
    const row = table.insertRow();
    const cell = row.insertCell();
    for (const key of keys) {
      const shown = document.createElement("kbd");
      shown.textContent = NAMES[key] ?? key;
      cell.append(shown, " ");
    }
    row.insertCell().textContent = help;
  }
}
