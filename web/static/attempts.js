/** The menu of attempts: the log of another run of the job opens with `?attempt=`. */

import { chosenAttempt } from "./api.js";
import { when } from "./lifecycle.js";

/** @typedef {import("./lifecycle.js").AttemptBody} AttemptBody */

export class AttemptMenu {
  /** @param {HTMLSelectElement} menu */
  constructor(menu) {
    this.menu = menu;
    menu.addEventListener("change", () => {
      const url = new URL(location.href);
      const isLog = menu.selectedOptions[0]?.dataset.log === "true";
      if (isLog) url.searchParams.delete("attempt");
      else url.searchParams.set("attempt", menu.value);
      url.hash = "";
      location.assign(url);
    });
  }

  /** @param {AttemptBody[]} attempts in the order they began */
  update(attempts) {
    const options = [...attempts.entries()].flatMap(([at, attempt]) => {
      // Of a closed attempt no parts are left.
      if (!attempt.is_log && (attempt.closed_at || !attempt.began_at)) return [];
      const began = attempt.began_at ? `, ${when(attempt.began_at)}` : "";
      const name = `Attempt ${at + 1}${began}`;
      const isShown = chosenAttempt === null ? attempt.is_log : attempt.uuid === chosenAttempt;
      const option = new Option(name, attempt.uuid, isShown, isShown);
      option.dataset.log = String(attempt.is_log);
      return [option];
    });
    this.menu.hidden = options.length < 2;
    const isSame = options.every((option, at) => option.isEqualNode(this.menu.options[at]));
    if (!isSame || options.length !== this.menu.options.length) {
      this.menu.replaceChildren(...options);
    }
  }
}
