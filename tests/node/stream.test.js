import assert from "node:assert/strict";
import { test } from "node:test";

import { encode, mockTime, pieces } from "./support.js";

globalThis.location = new URL("http://localhost/jobs/1"); // api.js reads it when it is imported
globalThis.sessionStorage = { getItem: () => null };
const { events, Stream } = await import("../../web/static/stream.js");

/** A body that sends these pieces of text. */
function bodyOf(texts) {
  return new ReadableStream({
    start(controller) {
      for (const text of texts) controller.enqueue(encode(text));
      controller.close();
    },
  });
}

const part = (id, content, in_order = true) =>
  `event: part\nid: ${id}\ndata: ${JSON.stringify({ content: btoa(content), in_order })}\n\n`;

/**
 * Follow a log whose server answers each request with the next of these bodies or statuses.
 * @returns {Promise<{cursors: string[], calls: string[]}>} the cursor of each request, and what the
 *   stream reported
 */
async function follow(...responses) {
  const cursors = [];
  const calls = [];
  globalThis.fetch = async (_, { headers }) => {
    cursors.push(headers["Last-Event-ID"]);
    const response = responses.shift();
    if (typeof response !== "number") return new Response(bodyOf(response));
    return Response.json({ error: "refused" }, { status: response });
  };
  const stream = new Stream("1", {
    part: (bytes) => calls.push(new TextDecoder().decode(bytes)),
    disorder: () => calls.push("disorder"),
    final: () => calls.push("final"),
    reset: () => calls.push("reset"),
    state: (state) => calls.push(state),
    refused: (error) => calls.push(`refused ${error.status}`),
  });
  await stream.run("start");
  return { cursors, calls };
}

test("events are read from pieces of any size", async () => {
  const text = ": hello\n\nevent: part\nid: 7\ndata: {}\n\nevent: final\r\ndata: é\r\n\r\n";
  for (const size of [1, 2, 5, text.length]) {
    const found = [];
    for await (const event of events(bodyOf(pieces(text, size)))) found.push(event);
    assert.deepEqual(found, [
      { name: "part", id: "7", data: "{}" },
      { name: "final", data: "é" },
    ]);
  }
});

test("a lost connection resumes after the last part", async () => {
  const { cursors, calls } = await follow([part("c1", "one")], 503, [
    part("c2", "two"),
    "event: final\ndata: {}\n\n",
  ]);
  assert.deepEqual(cursors, ["start", "c1", "c1"]);
  assert.deepEqual(calls, ["live", "one", "reconnecting", "reconnecting", "live", "two", "final"]);
});

test("a part out of order, a reset and a refusal end the stream", async () => {
  assert.deepEqual((await follow([part("c1", "late", false)])).calls, ["live", "disorder"]);
  assert.deepEqual((await follow(["event: reset\ndata: {}\n\n"])).calls, ["live", "reset"]);
  assert.deepEqual((await follow(403)).calls, ["refused 403"]);
});

/** Follow a log; each request is answered by the next function, given its signal. */
function followWith(...answers) {
  const states = [];
  globalThis.fetch = (_, { signal }) => answers.shift()(signal);
  const stream = new Stream("1", {
    state: (state) => states.push(state),
    final: () => states.push("final"),
  });
  return { stream, states, ended: stream.run("start") };
}

/** A request that is never answered. */
const hang = (signal) =>
  new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
/** A response without any byte. */
const silent = async (signal) =>
  new Response(
    new ReadableStream({
      start: (body) => signal.addEventListener("abort", () => body.error(signal.reason)),
    }),
  );
const final = async () => new Response(bodyOf(["event: final\ndata: {}\n\n"]));

test("a connection that is silent for two heartbeats is replaced", async () => {
  for (const dead of [hang, silent]) {
    const clock = mockTime();
    const { states, ended } = followWith(dead, final);
    clock.tick(31_000);
    await new Promise(setImmediate);
    assert.ok(!states.includes("reconnecting"));
    for (let second = 0; second < 4; second++) {
      clock.tick(1000);
      for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate);
    }
    await ended;
    assert.deepEqual(states.slice(-3), ["reconnecting", "live", "final"]);
    clock.restore();
  }
});

test("a changed network replaces the connection and ends the pause at once", async () => {
  const clock = mockTime();
  const { stream, states, ended } = followWith(silent, final);
  for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate);
  while (!states.includes("final")) {
    stream.reconnect();
    for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate);
  }
  await ended;
  assert.deepEqual(states, ["live", "reconnecting", "live", "final"]);
  clock.restore();
});
