/** One log: its outline, blocks, lines and folds, updated while parts arrive. */

import { apiError, call, callJson, chosenAttempt, pause } from "./api.js";
import { Blocks } from "./blocks.js";
import { Folds } from "./folds.js";
import { Lines } from "./lines.js";
import { Outline } from "./outline.js";
import { Stream } from "./stream.js";

/** @typedef {import("./api.js").ApiError} ApiError */
/**
 * @typedef {"loading" | "waiting" | "unavailable" | "wrong" | "live" | "reconnecting" | "ended" |
 *   "expired" | "gone" | "empty"} State
 */
/**
 * @typedef {object} LogListener
 * @property {(state: State, text?: string) => void} state
 * @property {(again: boolean) => void} opened there is a log to show; `again`: it was replaced
 * @property {() => void} grew there are more lines
 * @property {() => void} arrived blocks were fetched
 * @property {(error: ApiError) => Promise<void>} refused resolves when a retry makes sense
 * @property {() => boolean} following whether the reader follows the end of the log
 */

const RETRY_SECONDS = 3;
const TAIL_BLOCKS = 2;
const FLUSH_MS = 80;

export class Log {
  /** @type {object} identifies the current run of `open`, to stop earlier ones */
  #run = {};
  /** @type {Stream | null} */
  #stream = null;
  /** @type {Uint8Array[]} */
  #incoming = [];
  #flushing = 0;

  /**
   * @param {string} jobId
   * @param {LogListener} on
   */
  constructor(jobId, on) {
    this.jobId = jobId;
    this.on = on;
    this.folds = new Folds();
    this.blocks = new Blocks(
      (from, to, signal) => this.fetchRange(from, to, signal),
      () => this.on.arrived(),
      (error) => this.#failed(apiError(error)),
    );
    this.lines = new Lines(this.blocks);
    this.ended = false;
    addEventListener("online", () => this.#stream?.reconnect());
    addEventListener("pageshow", (event) => event.persisted && this.#stream?.reconnect());
    document.addEventListener("visibilitychange", () => this.#stream?.check());
  }

  /** Whether there is a log to show. */
  get isOpen() {
    return this.blocks.isOpen;
  }

  get outline() {
    return this.blocks.outline;
  }

  /**
   * Fetch bytes of the log.
   * @param {number} from
   * @param {number} to exclusive
   * @param {AbortSignal} [signal]
   */
  async fetchRange(from, to, signal) {
    if (to <= from) return new Uint8Array(0);
    const headers = { Range: `bytes=${from}-${to - 1}` };
    const response = await call(`/logs/${this.jobId}/raw`, { headers, signal });
    const bytes = new Uint8Array(await response.arrayBuffer());
    // A proxy may not support ranges.
    return response.status === 206 ? bytes : bytes.subarray(from, to);
  }

  /** Load the log and follow it, with retries. */
  async open(again = false) {
    const run = {};
    this.#run = run;
    this.#stream?.stop();
    this.#incoming = [];
    if (!again) this.on.state("loading");
    const outline = await this.#outline(run);
    if (!outline || this.#run !== run) return;
    this.blocks.reset(outline);
    this.ended = outline.ended;
    this.folds.update(outline.markers, outline.lines, false, outline.bare);
    await this.#tail(run);
    if (this.#run !== run) return;
    this.on.opened(again);
    if (this.ended) this.on.state("ended");
    else this.#follow(run);
  }

  /** Load the log again after it was replaced or a part arrived out of order. */
  reopen() {
    return this.open(true);
  }

  /**
   * @param {object} run
   * @returns {Promise<Outline | null>} null if another run has started
   */
  async #outline(run) {
    while (this.#run === run) {
      try {
        return new Outline(await callJson(`/logs/${this.jobId}/outline`));
      } catch (thrown) {
        const error = apiError(thrown);
        if (this.#run !== run) return null;
        if (error.status === 403) await this.on.refused(error);
        else if (error.status === 400) {
          this.on.state("wrong", error.message);
          await new Promise(() => {}); // a retry would fail too
        } else if (error.status === 410 || (error.status === 404 && chosenAttempt !== null)) {
          this.on.state("gone", error.message);
          await new Promise(() => {}); // a retry would fail too
        } else {
          this.on.state(error.status === 404 ? "waiting" : "unavailable", error.message);
          await pause(Math.max(RETRY_SECONDS, error.retryAfter));
        }
      }
    }
    return null;
  }

  /**
   * Load the end of the log first: readers look at it, and the stream continues from it.
   * @param {object} run
   */
  async #tail(run) {
    const last = this.outline.blocks - 1;
    const first = Math.max(last - TAIL_BLOCKS + 1, 0);
    while (this.#run === run && last >= 0) {
      try {
        await this.blocks.load(first, last);
        break;
      } catch (thrown) {
        const error = apiError(thrown);
        if (this.#run !== run) return;
        this.on.state("unavailable", error.message);
        await pause(Math.max(RETRY_SECONDS, error.retryAfter));
      }
    }
    const tail = this.blocks.get(last)?.bytes;
    if (tail) this.outline.seed(tail);
  }

  /** @param {object} run */
  #follow(run) {
    const reopen = () => {
      if (this.#run === run) this.reopen();
    };
    this.#stream = new Stream(this.jobId, {
      part: (bytes) => this.#take(bytes),
      disorder: reopen,
      reset: reopen,
      final: () => {
        this.#flush();
        this.ended = true;
        this.on.state("ended");
        this.on.grew();
        this.#readErrors(run);
      },
      state: (state) => this.on.state(state),
      refused: async (error) => {
        if (error.status === 403) await this.on.refused(error);
        else await pause(RETRY_SECONDS);
        reopen();
      },
    });
    this.#stream.run(this.outline.cursor);
  }

  /**
   * Read the errors of a log that has ended; the server finds them.
   * @param {object} run
   */
  async #readErrors(run) {
    const body = await callJson(`/logs/${this.jobId}/outline`).catch(() => null);
    if (!body || this.#run !== run) return;
    this.outline.errors = body.error_lines;
    this.on.grew();
  }

  /**
   * Buffer a part; many parts per second are applied together.
   * @param {Uint8Array} bytes
   */
  #take(bytes) {
    this.#incoming.push(bytes);
    this.#flushing ||= setTimeout(() => this.#flush(), FLUSH_MS);
  }

  #flush() {
    clearTimeout(this.#flushing);
    this.#flushing = 0;
    if (!this.#incoming.length) return;
    const length = this.#incoming.reduce((sum, bytes) => sum + bytes.length, 0);
    const all = new Uint8Array(length);
    let at = 0;
    for (const bytes of this.#incoming) {
      all.set(bytes, at);
      at += bytes.length;
    }
    this.#incoming = [];
    const { outline } = this;
    const bare = outline.bare.length;
    const hasMarkers = outline.append(all) || outline.bare.length > bare;
    this.blocks.append(all);
    const quiet = !this.on.following();
    if (hasMarkers) this.folds.update(outline.markers, outline.lines, quiet, outline.bare);
    else this.folds.grow(outline.lines);
    this.on.grew();
  }

  /** @param {ApiError} error */
  #failed(error) {
    // 416: the log is shorter than before, so it was replaced.
    if (error.status === 416 || error.status === 404) this.reopen();
    else if (error.status === 403) this.on.refused(error).then(() => this.reopen());
    else setTimeout(() => this.on.arrived(), 1000 * Math.max(2, error.retryAfter));
  }
}
