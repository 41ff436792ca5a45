import assert from "node:assert/strict";
import { test } from "node:test";

import { hashOf, readHash } from "../../web/static/selection.js";

test("a range of lines is read from the address and written to it", () => {
  assert.deepEqual(readHash("#L5"), { first: 4, last: 4 });
  assert.deepEqual(readHash("#L2-L4"), { first: 1, last: 3 });
  assert.deepEqual(readHash("#L4-L2"), { first: 1, last: 3 });
  assert.deepEqual(readHash("#L0"), { first: 0, last: 0 });
  assert.equal(hashOf({ first: 4, last: 4 }), "#L5");
  assert.equal(hashOf({ first: 1, last: 3 }), "#L2-L4");
});

test("other hashes select nothing", () => {
  for (const hash of ["", "#L", "#L1-", "#Lx", "#L1-L2-L3", "#L99999999999999999999"]) {
    assert.equal(readHash(hash), null);
  }
});
