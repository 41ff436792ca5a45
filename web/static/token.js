/** The form that asks for the token when the server refuses. */

import { setToken } from "./api.js";

const form = document.getElementById("token-form");

/**
 * Ask for the token.
 * @param {string} why what the server said
 * @returns {Promise<void>} once one was given
 */
export function askForToken(why) {
  const input = form.elements.namedItem("token");
  form.querySelector(".why").textContent = why;
  form.hidden = false;
  input.value = "";
  input.focus();
  return new Promise((resolve) => {
    form.addEventListener(
      "submit",
      (event) => {
        event.preventDefault();
        setToken(input.value.trim());
        input.value = "";
        form.hidden = true;
        resolve();
      },
      { once: true },
    );
  });
}
