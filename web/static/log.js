/** One log: its outline, blocks, lines and folds, kept right while parts come in. */

import { call, callJson, pause } from "./api.js";
import { Blocks } from "./blocks.js";
import { Folds } from "./folds.js";
import { Lines } from "./lines.js";
import { Outline } from "./outline.js";
import { Stream } from "./stream.js";

const WAIT_SECONDS = 3;
const TAIL_BLOCKS = 2;
const FLUSH_MS = 80;

/**
 * Calls `on.state(state, text)` with `loading`, `waiting`, `unavailable`, `live`, `reconnecting` or
 * `ended`; `on.opened(again)` when there is a log to show, or another than before; `on.grew()`
 * when it has more lines; `on.arrived()` when blocks came; `on.refused(error)`, a promise that
 * resolves when another try makes sense.
 */
export class Log {
  constructor(jobId, on) {
    this.jobId = jobId;
    this.on = on;
    this.folds = new Folds();
    this.blocks = new Blocks(
      (from, to, signal) => this.fetchRange(from, to, signal),
      () => this.on.arrived(),
      (error) => this.#failed(error),
    );
    this.lines = new Lines(this.blocks);
    this.incoming = [];
    this.ended = false;
  }

  get outline() {
    return this.blocks.outline;
  }

  /** The bytes from `from` up to `to`. */
  async fetchRange(from, to, signal) {
    if (to <= from) return new Uint8Array(0);
    const headers = { Range: `bytes=${from}-${to - 1}` };
    const answer = await call(`/logs/${this.jobId}/raw`, { headers, signal });
    const bytes = new Uint8Array(await answer.arrayBuffer());
    // A server in between may not know ranges.
    return answer.status === 206 ? bytes : bytes.subarray(from, to);
  }

  /** Load the log from its outline on, and follow it. Never gives up. */
  async open(again = false) {
    const run = (this.run = {});
    this.stream?.stop();
    this.incoming = [];
    if (!again) this.on.state("loading");
    const outline = await this.#outline(run);
    if (this.run !== run) return;
    this.blocks.reset(outline);
    this.ended = outline.ended;
    this.folds.update(outline.markers, outline.lines, false);
    await this.#tail(run);
    if (this.run !== run) return;
    this.on.opened(again);
    if (this.ended) this.on.state("ended");
    else this.#follow(run);
  }

  /** Take in what was written anew, or out of order. */
  reopen() {
    return this.open(true);
  }

  async #outline(run) {
    while (this.run === run) {
      try {
        return new Outline(await callJson(`/logs/${this.jobId}/outline`));
      } catch (error) {
        if (this.run !== run) return null;
        if (error.status === 403) await this.on.refused(error);
        else if (error.status === 400 || error.status === 410) {
          this.on.state("wrong", error.message);
          await new Promise(() => {}); // another address or another run is needed, not another try
        } else {
          const waiting = error.status === 404;
          this.on.state(waiting ? "waiting" : "unavailable", error.message);
          await pause(Math.max(WAIT_SECONDS, error.retryAfter ?? 0));
        }
      }
    }
    return null;
  }

  /** The end of the log first: it is what people come for, and the stream goes on from it. */
  async #tail(run) {
    const last = this.outline.blocks - 1;
    const first = Math.max(last - TAIL_BLOCKS + 1, 0);
    while (this.run === run && last >= 0) {
      try {
        await this.blocks.load(first, last);
        break;
      } catch (error) {
        if (this.run !== run) return;
        this.on.state("unavailable", error.message);
        await pause(Math.max(WAIT_SECONDS, error.retryAfter ?? 0));
      }
    }
    const end = this.blocks.get(last)?.bytes;
    if (end) this.outline.seed(end);
  }

  #follow(run) {
    this.stream = new Stream(this.jobId, {
      part: (bytes) => this.#take(bytes),
      disorder: () => this.run === run && this.reopen(),
      reset: () => this.run === run && this.reopen(),
      final: () => {
        this.#flush();
        this.ended = true;
        this.on.state("ended");
        this.on.grew();
      },
      state: (state) => this.on.state(state),
      refused: (error) => this.#refused(run, error),
    });
    this.stream.run(this.outline.cursor);
  }

  async #refused(run, error) {
    if (error.status === 403) await this.on.refused(error);
    else await pause(WAIT_SECONDS);
    if (this.run === run) this.reopen();
  }

  /** Many parts a second are taken in together: nobody reads faster. */
  #take(bytes) {
    this.incoming.push(bytes);
    this.flushing ||= setTimeout(() => this.#flush(), FLUSH_MS);
  }

  #flush() {
    clearTimeout(this.flushing);
    this.flushing = 0;
    if (!this.incoming.length) return;
    const length = this.incoming.reduce((sum, bytes) => sum + bytes.length, 0);
    const all = new Uint8Array(length);
    let at = 0;
    for (const bytes of this.incoming) {
      all.set(bytes, at);
      at += bytes.length;
    }
    this.incoming = [];
    const { outline } = this;
    const marked = outline.append(all);
    this.blocks.append(all);
    if (marked) this.folds.update(outline.markers, outline.lines, !this.on.following());
    else this.folds.grow(outline.lines);
    this.on.grew();
  }

  #failed(error) {
    // 416: the log is shorter than it was, so it is another one.
    if (error.status === 416 || error.status === 404) this.reopen();
    else if (error.status === 403) this.on.refused(error).then(() => this.reopen());
    else setTimeout(() => this.on.arrived(), 1000 * Math.max(2, error.retryAfter ?? 0));
  }
}
