/** A log's live parts: server-sent events by fetch, which can send a token and resume. */

import { ApiError, call, pause } from "./api.js";

const FIRST_PAUSE = 0.25;
const LONGEST_PAUSE = 8;
// The server sends a comment now and then; without any byte for this long the line is dead.
const SILENCE_SECONDS = 60;

/** Bytes out of base64. */
export function fromBase64(text) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

/** Server-sent events out of a response's body, whatever pieces it comes in. */
export async function* events(body, heard = () => {}) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = {};
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      heard();
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (event.name || event.data) yield event;
          event = {};
          continue;
        }
        const [, field, text] = /^([^:]*):? ?(.*)$/.exec(line);
        if (field === "event") event.name = text;
        else if (field === "id") event.id = text;
        else if (field === "data") event.data = event.data ? `${event.data}\n${text}` : text;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/**
 * Follows one log until it ends, through lost connections and servers that restart.
 *
 * `on.part(bytes, number)`, `on.disorder()` when a part belongs before what is there, `on.final()`,
 * `on.reset()` when the log is another one, `on.state("live" | "reconnecting")`, `on.refused(error)`.
 */
export class Stream {
  constructor(jobId, on) {
    this.jobId = jobId;
    this.on = on;
    this.stopper = new AbortController();
  }

  stop() {
    this.stopper.abort(new DOMException("stopped", "AbortError"));
  }

  /** Go on from a cursor. Returns when the log ended, was reset, or `stop` was called. */
  async run(cursor) {
    this.cursor = cursor;
    let wait = FIRST_PAUSE;
    while (!this.stopper.signal.aborted) {
      try {
        const outcome = await this.#connect(() => (wait = FIRST_PAUSE));
        if (outcome === "over") return;
      } catch (error) {
        if (this.stopper.signal.aborted) return;
        if (error instanceof ApiError && [400, 403, 404, 410].includes(error.status)) {
          this.on.refused(error);
          return;
        }
        wait = Math.max(wait, error.retryAfter ?? 0);
      }
      this.on.state("reconnecting");
      await pause(wait * (0.75 + Math.random() / 2), this.stopper.signal).catch(() => {});
      wait = Math.min(wait * 2, LONGEST_PAUSE);
    }
  }

  async #connect(heard) {
    const attempt = new AbortController();
    const end = () => attempt.abort();
    this.stopper.signal.addEventListener("abort", end);
    let silence = setTimeout(end, SILENCE_SECONDS * 1000);
    try {
      const answer = await call(`/logs/${this.jobId}/stream`, {
        params: { encoding: "base64" },
        headers: { Accept: "text/event-stream", "Last-Event-ID": this.cursor },
        signal: attempt.signal,
      });
      this.on.state("live");
      const alive = () => {
        heard();
        clearTimeout(silence);
        silence = setTimeout(end, SILENCE_SECONDS * 1000);
      };
      for await (const event of events(answer.body, alive)) {
        const outcome = this.#take(event);
        if (outcome) return outcome;
      }
      return "lost";
    } finally {
      clearTimeout(silence);
      this.stopper.signal.removeEventListener("abort", end);
    }
  }

  /** Returns "over" where nothing more is to come on this cursor, "lost" to connect again. */
  #take(event) {
    if (this.stopper.signal.aborted) return "over";
    if (event.name === "part") {
      const part = JSON.parse(event.data);
      if (event.id) this.cursor = event.id;
      if (part.in_order === false) {
        this.on.disorder();
        return "over";
      }
      this.on.part(fromBase64(part.content), part.number);
    } else if (event.name === "final") {
      this.on.final();
      return "over";
    } else if (event.name === "reset") {
      this.on.reset();
      return "over";
    } else if (event.name === "reconnect") return "lost";
    return null;
  }
}
