// Before anything is shown: the theme that the reader has chosen here.
"use strict";

try {
  const theme = localStorage.getItem("lanes-theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
} catch {
  // no storage, no choice: the system's theme
}
