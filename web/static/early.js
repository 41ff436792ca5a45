// Runs before the first paint, so that a dark page does not flash light.
try {
  const theme = localStorage.getItem("logflume-theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
} catch {
  // Without storage the system's theme applies.
}
