/** The theme: the system's until the reader chooses one. */

const KEY = "logflume-theme";
const system = matchMedia("(prefers-color-scheme: dark)");

function current() {
  return document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light");
}

/** Switch to the other theme and remember it. */
export function toggleTheme() {
  const theme = current() === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // Without storage the choice applies to this page only.
  }
}

/** Print dark text on white paper, whatever the theme. */
export function printLight() {
  const root = document.documentElement;
  /** @type {string | undefined} */
  let theme;
  addEventListener("beforeprint", () => {
    theme = root.dataset.theme;
    root.dataset.theme = "light";
  });
  addEventListener("afterprint", () => {
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
  });
}

/**
 * Make a button switch the theme.
 * @param {HTMLElement} button
 */
export function themeButton(button) {
  button.addEventListener("click", toggleTheme);
}
