// What the end of a stream means for the page.

import { TOO_MUCH } from './socket.js';

/**
 * @typedef {{kind: 'over'} | {kind: 'again', quick: boolean, opened: boolean} | {kind: 'refused', why: string}
 *   | {kind: 'exit', code: number, signal?: string}} Ending
 */

/**
 * @param {{code: number, reason: string}} close
 * @param {boolean} opened Whether there was a stream at all.
 * @returns {Ending}
 */
export function endingOf({ code, reason }, opened) {
  switch (code) {
    case 1000:
    case 1005:
      return { kind: 'over' };
    case 1008:
      return { kind: 'refused', why: reason || 'the stream may not be watched any more' };
    case TOO_MUCH:
      return { kind: 'again', quick: true, opened };
    default:
      return { kind: 'again', quick: false, opened };
  }
}

/** The address of a WebSocket on the origin of this page, whatever a proxy in front made of its name. */
export function here(url) {
  const { pathname, search } = new URL(url, location.href);
  return `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}${pathname}${search}`;
}

/** What a stream is opened with. */
export const protocols = (ticket) => ['tidegate.v1', `ticket.${ticket}`];
