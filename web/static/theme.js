/** Dark or light: the system's choice until the person makes one. */

const KEY = "logflume-theme";
const system = matchMedia("(prefers-color-scheme: dark)");

function current() {
  return document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light");
}

/** Go over to the other theme and remember it. */
export function toggleTheme() {
  const theme = current() === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // It then holds for this page only.
  }
}

/** Let a button change the theme. */
export function themeButton(button) {
  button.addEventListener("click", toggleTheme);
}
