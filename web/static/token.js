/** The form that asks for the API token when the server refuses a request. */

import { setToken } from "./api.js";
import { byId, inputOf, within } from "./dom.js";

const form = byId("token-form", HTMLFormElement);

/**
 * Ask for the token and store it.
 * @param {string} reason the server's error
 * @returns {Promise<void>} resolves when a token was entered
 */
export function askForToken(reason) {
  const input = inputOf(form, "token");
  within(form, ".why", HTMLElement).textContent = reason;
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
