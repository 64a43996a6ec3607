import assert from 'node:assert/strict';
import { test } from 'node:test';

import { bound, MOST_STEPS } from '../src/bounds.js';

/** What a parser was told to ask before it carries out a sequence. */
function asked() {
  const handlers = new Map();
  bound({ registerCsiHandler: ({ final }, handler) => handlers.set(final, handler) });
  return handlers;
}

test('what repeats is carried out as often as a screen has room, and not more often', () => {
  for (const final of ['I', 'Z', 'L', 'M', 'S', 'T', 'b']) {
    const left = asked().get(final);
    assert.equal(left([0]), false, final);
    assert.equal(left([MOST_STEPS]), false, final);
    assert.equal(left([MOST_STEPS + 1]), true, final);
    assert.equal(left([1, [2_147_483_647]]), true, `${final} with parts`);
  }
});

test('what moves the cursor is the terminal\'s alone', () => {
  for (const final of ['A', 'H', 'm', 'J']) assert.equal(asked().has(final), false, final);
});
