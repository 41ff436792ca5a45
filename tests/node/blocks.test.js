import assert from "node:assert/strict";
import { test } from "node:test";

import { Blocks } from "../../web/static/blocks.js";
import { Lines } from "../../web/static/lines.js";
import { emptyOutline, encode } from "./support.js";

const ignore = () => {};

for (const before of ["a", "abcdefg", "abcdefgh", "abcdefghij"]) {
  test(`bytes received during a fetch follow the fetched ${before.length}`, async () => {
    const during = "0123456789\n0123";
    const bytes = encode(before + during);
    const outline = emptyOutline(8);
    outline.append(bytes.slice(0, before.length));
    let respond = ignore;
    const fetchRange = (from, to) =>
      new Promise((resolve) => {
        respond = () => resolve(bytes.slice(from, to));
      });
    const blocks = new Blocks(fetchRange, ignore, assert.fail);
    blocks.reset(outline);
    const loading = blocks.load(0, outline.blocks - 1);
    for (const byte of bytes.slice(before.length)) {
      outline.append(Uint8Array.of(byte));
      blocks.append(Uint8Array.of(byte));
    }
    respond();
    await loading;
    const text = Array.from({ length: outline.blocks }, (_, index) =>
      new TextDecoder().decode(blocks.get(index)?.bytes),
    );
    assert.equal(text.join(""), before + during);
  });
}

test("lines are read across blocks, with the style set before them", async () => {
  const bytes = encode("plain\n\x1b[31mred, over two blocks\nstill red\x1b[0m\nlast");
  const outline = emptyOutline(16);
  outline.append(bytes);
  const blocks = new Blocks(async (from, to) => bytes.slice(from, to), ignore, assert.fail);
  blocks.reset(outline);
  const lines = new Lines(blocks);
  assert.equal(lines.read(1), null);
  await blocks.load(0, outline.blocks - 1);
  const shown = [0, 1, 2, 3].map((line) => {
    const { runs } = lines.read(line);
    return runs.map(({ text, style }) => `${style.fg ?? ""}:${text}`).join("|");
  });
  assert.deepEqual(shown, [":plain", "1:red, over two blocks", "1:still red", ":last"]);
});
