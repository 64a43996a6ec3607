// What the page asks its server: how the session stands, and a ticket for its stream.

/** A request that was answered with a refusal, or not at all. */
export class Refusal extends Error {
  /**
   * @param {number} status 0 where no answer came.
   * @param {string} message A sentence for people.
   * @param {number} retryAfter Seconds, 0 where the server names none.
   */
  constructor(status, message, retryAfter = 0) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }

  /** Whether it may go better the next time without anybody doing anything. */
  get passes() {
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500;
  }
}

const PATIENCE = 10_000;

/** The server's side of one session. */
export class Api {
  /** @param {{session: string, org: string, token: string, mode: string}} page */
  constructor(page) {
    this.page = page;
  }

  /** How the session stands. Asking is no activity. */
  state() {
    return this.#ask('state', { method: 'GET' });
  }

  /** A ticket for one stream; wakes the session if it is asleep. */
  connect() {
    const body = new URLSearchParams({ token: this.page.token, mode: this.page.mode });
    return this.#ask('connect', { method: 'POST', body });
  }

  async #ask(what, options) {
    const org = encodeURIComponent(this.page.org);
    const path = `/sessions/${this.page.session}/${what}?org=${org}&mode=${this.page.mode}`;
    let response;
    try {
      response = await fetch(path, { ...options, cache: 'no-store', redirect: 'error', signal: AbortSignal.timeout(PATIENCE) });
    } catch {
      throw new Refusal(0, 'the server does not answer');
    }
    const body = await response.json().catch(() => null);
    if (response.ok && body) return body;
    const message = body?.error?.message ?? `the server answered with status ${response.status}`;
    throw new Refusal(response.status, message, Number(response.headers.get('Retry-After')) || 0);
  }
}
