/** The live parts of a log: server-sent events by fetch, which can send a token and resume. */

import { apiError, call, pause } from "./api.js";

/** @typedef {{name?: string, id?: string, data?: string}} ServerEvent */
/**
 * @typedef {object} StreamListener
 * @property {(bytes: Uint8Array) => void} part
 * @property {() => void} disorder a part belongs before those already sent
 * @property {() => void} final the log is complete
 * @property {() => void} reset the log was replaced
 * @property {(state: "live" | "reconnecting") => void} state
 * @property {(error: import("./api.js").ApiError) => void} refused
 */

const FIRST_PAUSE = 0.25;
const MAX_PAUSE = 8;
// The server sends a heartbeat every 15 s; after two missing ones the connection is dead.
const SILENT_MS = 32_000;
const CHECK_MS = 1000;

/**
 * Decode base64.
 * @param {string} text
 */
export function fromBase64(text) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

/**
 * Parse the server-sent events in a response body.
 * @param {ReadableStream<Uint8Array<ArrayBuffer>>} body
 * @param {() => void} [received] called with each piece of the body
 * @returns {AsyncGenerator<ServerEvent>}
 */
export async function* events(body, received = () => {}) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  /** @type {ServerEvent} */
  let event = {};
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      received();
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop() ?? "";
      for (const line of lines) {
        if (line === "") {
          if (event.name || event.data) yield event;
          event = {};
          continue;
        }
        const [, field, text] = /^([^:]*):? ?(.*)$/.exec(line) ?? [];
        if (field === "event") event.name = text;
        else if (field === "id") event.id = text;
        else if (field === "data") event.data = event.data ? `${event.data}\n${text}` : text;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Follows a log until it ends, through lost connections and restarts of the server. */
export class Stream {
  /**
   * @param {string} jobId
   * @param {StreamListener} on
   */
  constructor(jobId, on) {
    this.jobId = jobId;
    this.on = on;
    this.cursor = "";
    this.stopper = new AbortController();
    this.attempt = new AbortController();
    this.lastByte = Date.now();
  }

  /** Connect again now: the network has changed or the device has slept. */
  reconnect() {
    this.attempt.abort();
  }

  /** Connect again if the connection is silent for too long; timers do not run during sleep. */
  check() {
    if (Date.now() - this.lastByte > SILENT_MS) this.reconnect();
  }

  stop() {
    this.stopper.abort(new DOMException("stopped", "AbortError"));
  }

  /**
   * Continue from a cursor. Returns when the log ended or was reset, or after `stop`.
   * @param {string} cursor
   */
  async run(cursor) {
    this.cursor = cursor;
    let wait = FIRST_PAUSE;
    while (!this.stopper.signal.aborted) {
      try {
        const outcome = await this.#connect(() => {
          wait = FIRST_PAUSE;
        });
        if (outcome === "over") return;
      } catch (thrown) {
        if (this.stopper.signal.aborted) return;
        const error = apiError(thrown);
        if ([400, 403, 404, 410].includes(error.status)) {
          this.on.refused(error);
          return;
        }
        wait = Math.max(wait, error.retryAfter);
      }
      this.on.state("reconnecting");
      this.attempt = new AbortController();
      const interrupted = AbortSignal.any([this.stopper.signal, this.attempt.signal]);
      await pause(wait, interrupted).catch(() => {});
      wait = Math.min(wait * 2, MAX_PAUSE);
    }
  }

  /**
   * Read one connection until it closes.
   * @param {() => void} received called with each piece of the response
   * @returns {Promise<"over" | "lost">}
   */
  async #connect(received) {
    this.attempt = new AbortController();
    this.lastByte = Date.now();
    const timer = setInterval(() => this.check(), CHECK_MS);
    try {
      const response = await call(`/logs/${this.jobId}/stream`, {
        params: { encoding: "base64" },
        headers: { Accept: "text/event-stream", "Last-Event-ID": this.cursor },
        signal: AbortSignal.any([this.stopper.signal, this.attempt.signal]),
        seconds: Infinity,
      });
      this.on.state("live");
      if (!response.body) return "lost";
      const alive = () => {
        received();
        this.lastByte = Date.now();
      };
      for await (const event of events(response.body, alive)) {
        const outcome = this.#take(event);
        if (outcome) return outcome;
      }
      return "lost";
    } finally {
      clearInterval(timer);
    }
  }

  /**
   * Handle an event.
   * @param {ServerEvent} event
   * @returns {"over" | "lost" | null} over: the stream has ended; lost: connect again
   */
  #take(event) {
    if (this.stopper.signal.aborted) return "over";
    if (event.name === "part") {
      const part = JSON.parse(event.data ?? "{}");
      if (event.id) this.cursor = event.id;
      if (part.in_order === false) {
        this.on.disorder();
        return "over";
      }
      this.on.part(fromBase64(part.content));
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
