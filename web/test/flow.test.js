import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Backoff, Flow, Queue } from '../src/flow.js';

/** Whether a promise is settled by the next turn. */
function settled(promise) {
  const yes = promise.then(() => true);
  return Promise.race([yes, new Promise((tell) => setImmediate(tell, false))]);
}

test('a giver waits above the high mark until it is below the low one', async () => {
  const flow = new Flow(10, 4);
  flow.add(9);
  assert.ok(await settled(flow.room()), 'nine are below the mark');
  flow.add(3);
  const room = flow.room();
  assert.equal(await settled(room), false);
  flow.done(6);
  assert.equal(await settled(room), false, 'six still wait');
  flow.done(2);
  assert.ok(await settled(room));
  assert.equal(flow.waiting, 4);
});

test('a queue hands out in order and ends after its last item', async () => {
  const queue = new Queue(10);
  const first = queue.take();
  assert.ok(queue.push('a', 5));
  assert.ok(queue.push('b', 5));
  queue.close();
  assert.equal(await first, 'a');
  assert.equal(await queue.take(), 'b');
  assert.equal(await queue.take(), undefined);
});

test('a queue that is full lets go of everything and takes nothing more', async () => {
  const queue = new Queue(10);
  assert.ok(queue.push('a', 10));
  assert.equal(queue.push('b', 1), false);
  assert.equal(await queue.take(), undefined);
  assert.ok(queue.push('c', 1), 'what comes after the end is nobody’s complaint');
  assert.equal(await queue.take(), undefined);
});

test('what was taken makes room', async () => {
  const queue = new Queue(10);
  for (let round = 0; round < 100; round += 1) {
    assert.ok(queue.push(round, 10));
    assert.equal(await queue.take(), round);
  }
});

test('a wait doubles up to its longest, is spread, and starts over', () => {
  const most = new Backoff(500, 15_000, () => 1);
  const waits = Array.from({ length: 7 }, () => most.next());
  assert.deepEqual(waits, [500, 1000, 2000, 4000, 8000, 15_000, 15_000]);
  most.reset();
  assert.equal(most.next(), 500);
  const least = new Backoff(500, 15_000, () => 0);
  assert.deepEqual([least.next(), least.next()], [250, 500]);
});
