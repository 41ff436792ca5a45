/** The keyboard: one table, from which both the handling and the help are made. */

const KEYS = [
  [["/"], "search", "Search the whole log"],
  [["n"], "next", "Next match"],
  [["N", "p"], "previous", "Previous match"],
  [["j", "ArrowDown"], "down", "One row down"],
  [["k", "ArrowUp"], "up", "One row up"],
  [[" ", "PageDown"], "pageDown", "One page down"],
  [["b", "PageUp"], "pageUp", "One page up"],
  [["g", "Home"], "top", "To the top"],
  [["G", "End"], "end", "To the end"],
  [["f"], "follow", "Follow a live log"],
  [["]"], "nextFold", "To the next fold"],
  [["["], "previousFold", "To the previous fold"],
  [["Enter"], null, "Open or close the fold that has the focus"],
  [["e"], "openAll", "Open all folds"],
  [["c"], "closeAll", "Close all folds"],
  [["y"], "copy", "Copy the selected lines, or the log"],
  [["l"], "copyLink", "Copy a link to the selected lines"],
  [["i"], "about", "What is known of the log"],
  [["t"], "theme", "Dark or light"],
  [["Escape"], "escape", "Close what is open, or select nothing"],
  [["?"], "help", "This help"],
];
const NAMES = {
  " ": "Space",
  ArrowDown: "↓",
  ArrowUp: "↑",
  PageDown: "PgDn",
  PageUp: "PgUp",
  Escape: "Esc",
};

/** Call the action of a key, unless the person is typing or in a dialog. */
export function listen(actions) {
  document.addEventListener("pointerdown", () => document.body.classList.remove("tabbing"));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Tab") document.body.classList.add("tabbing");
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "f") {
      // The browser's own search sees only the rows on the screen; a second press gets to it.
      if (document.activeElement?.name === "q") return;
      event.preventDefault();
      actions.search();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const on = event.target;
    if (on instanceof HTMLInputElement || document.querySelector("dialog[open]")) return;
    if ((event.key === " " || event.key === "Enter") && on.closest?.("button, a, summary")) return;
    const found = KEYS.find(([keys, action]) => action && keys.includes(event.key));
    if (!found || event.defaultPrevented) return;
    event.preventDefault();
    actions[found[1]]();
  });
}

/** Fill the help. */
export function fillHelp(table) {
  for (const [keys, , text] of KEYS) {
    const row = table.insertRow();
    const cell = row.insertCell();
    for (const key of keys) {
      const shown = document.createElement("kbd");
      shown.textContent = NAMES[key] ?? key;
      cell.append(shown, " ");
    }
    row.insertCell().textContent = text;
  }
}
