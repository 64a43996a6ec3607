// How much may wait in the browser, and how long to wait before trying again. No DOM here: `test/flow.test.js` runs it.

/** Bytes given to something slow, with two marks: above the high one the giver waits until it is below the low one. */
export class Flow {
  #waiting = 0;
  #wake = [];

  constructor(high = 512 * 1024, low = 128 * 1024) {
    this.high = high;
    this.low = low;
  }

  get waiting() {
    return this.#waiting;
  }

  add(bytes) {
    this.#waiting += bytes;
  }

  done(bytes) {
    this.#waiting -= bytes;
    if (this.#waiting <= this.low) this.#wake.splice(0).forEach((wake) => wake());
  }

  /** Resolves when there is room. */
  room() {
    if (this.#waiting < this.high) return Promise.resolve();
    return new Promise((wake) => this.#wake.push(wake));
  }
}

/** A queue that holds so many bytes and not more. */
export class Queue {
  #items = [];
  #bytes = 0;
  #taker = null;
  #closed = false;

  constructor(limit) {
    this.limit = limit;
  }

  /** Takes an item in; false where it has no room, and then everything that waits is let go. */
  push(item, bytes) {
    if (this.#closed) return true;
    if (this.#bytes + bytes > this.limit) {
      this.#items = [];
      this.close();
      return false;
    }
    this.#bytes += bytes;
    this.#items.push([item, bytes]);
    this.#wake();
    return true;
  }

  /** No more comes; what waits is still handed out. */
  close() {
    this.#closed = true;
    this.#wake();
  }

  /** The next item, `undefined` after the last. */
  async take() {
    while (this.#items.length === 0) {
      if (this.#closed) return undefined;
      await new Promise((wake) => (this.#taker = wake));
    }
    const [item, bytes] = this.#items.shift();
    this.#bytes -= bytes;
    return item;
  }

  #wake() {
    this.#taker?.();
    this.#taker = null;
  }
}

/** Longer from try to try, and never the same for two pages that lost the same server. */
export class Backoff {
  #tries = 0;

  constructor(first = 500, longest = 15_000, random = Math.random) {
    this.first = first;
    this.longest = longest;
    this.random = random;
  }

  /** Milliseconds to wait now. */
  next() {
    const most = Math.min(this.longest, this.first * 2 ** this.#tries);
    this.#tries += 1;
    return Math.round(most * (0.5 + this.random() / 2));
  }

  /** It went well. */
  reset() {
    this.#tries = 0;
  }
}
