// Before the first paint, so that nobody who chose dark is blinded by a flash of light.
try {
  const theme = localStorage.getItem("logflume-theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
} catch {
  // No storage: the system's choice it is.
}
