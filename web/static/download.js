/** The links to the bytes of the log. */

import { address, call, hasToken } from "./api.js";

export class RawLinks {
  /**
   * @param {string} jobId
   * @param {HTMLAnchorElement} raw
   * @param {HTMLAnchorElement} download
   * @param {(text: string) => void} say
   * @param {(error: unknown) => void} sayError
   */
  constructor(jobId, raw, download, say, sayError) {
    this.jobId = jobId;
    this.raw = raw;
    this.download = download;
    this.say = say;
    this.sayError = sayError;
    raw.addEventListener("click", (event) => {
      const tab = hasToken() ? open("about:blank") : null; // opened later, it would count as a pop-up
      this.#fetch(event, (url) => tab?.location.assign(url));
    });
    download.addEventListener("click", (event) => this.#fetch(event, (url) => this.#save(url)));
    this.update();
  }

  /** Adopt the credentials of the page. */
  update() {
    this.raw.href = address(`/logs/${this.jobId}/raw`);
    this.download.href = address(`/logs/${this.jobId}/raw`, { download: "" });
  }

  /**
   * Fetch the log for a link if a token is needed, which links cannot send.
   * @param {Event} event
   * @param {(url: string) => void} use
   */
  async #fetch(event, use) {
    if (!hasToken()) return;
    event.preventDefault();
    this.say("Loading the log…");
    try {
      const response = await call(`/logs/${this.jobId}/raw`, { seconds: 600 });
      const blob = new Blob([await response.arrayBuffer()], { type: "text/plain;charset=utf-8" });
      use(URL.createObjectURL(blob));
      this.say("");
    } catch (error) {
      this.sayError(error);
    }
  }

  /** @param {string} url */
  #save(url) {
    const link = document.createElement("a");
    link.href = url;
    link.download = `job-${this.jobId}.log`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }
}
