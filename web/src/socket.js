// A WebSocket whose messages are taken one after the other: the next one is asked for when the last one is dealt with.
//
// Where the browser has `WebSocketStream`, what is not asked for stays in the network, and the server slows down. The
// plain WebSocket cannot be paused: there what waits is bounded, and the stream is given up when the bound is reached;
// attached again, the server sends one repaint in the place of everything that was missed.
// (docs/decisions/0016-the-session-page.md)

import { Queue } from './flow.js';

/** Bytes that may wait in the page where the browser cannot hold the server back. */
export const INBOUND = 4 * 1024 * 1024;
/** Bytes that may wait to be sent; a paste that does not fit is not sent. */
const OUTBOUND = 4 * 1024 * 1024;
/** Bytes of one message to the server, who takes at most 1 MiB. */
const PIECE = 64 * 1024;

/** How a stream ended that was too much for the page; not on the wire of anybody else. */
export const TOO_MUCH = 4000;
/** Ended without a word (RFC 6455, 7.1.5). */
export const LOST = 1006;

/**
 * Opens a stream.
 * @param {string} url
 * @param {string[]} protocols
 * @param {(message: string | Uint8Array) => unknown} take Whatever it returns is awaited before the next message.
 * @returns {{opened: Promise<boolean>, ended: Promise<{code: number, reason: string}>, send: (data: string | Uint8Array) => boolean, close: (code?: number) => void}}
 */
export function open(url, protocols, take) {
  return 'WebSocketStream' in globalThis ? paced(url, protocols, take) : bounded(url, protocols, take);
}

/** Bytes in pieces that the server takes. */
function* pieces(data) {
  if (typeof data === 'string') yield data;
  else for (let at = 0; at < data.length; at += PIECE) yield data.subarray(at, at + PIECE);
}

const bytes = (data) => (data instanceof ArrayBuffer ? new Uint8Array(data) : data);
const weight = (data) => (typeof data === 'string' ? data.length : data.byteLength);

function paced(url, protocols, take) {
  const socket = new WebSocketStream(url, { protocols });
  let writer = null;
  let waiting = 0;
  let given = null;
  const opened = socket.opened.then(
    () => true,
    () => false,
  );
  const run = async () => {
    const { readable, writable } = await socket.opened;
    writer = writable.getWriter();
    // What happens to it is told by `closed`.
    writer.closed.catch(() => {});
    const reader = readable.getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      await take(bytes(value));
    }
    const { closeCode, reason } = await socket.closed;
    return { code: closeCode || 1005, reason: reason ?? '' };
  };
  const ended = run()
    .catch((error) => ({ code: error?.closeCode || LOST, reason: error?.reason ?? '' }))
    .then((ending) => {
      writer = null;
      return given === null ? ending : { code: given, reason: '' };
    });
  return {
    opened,
    ended,
    send(data) {
      if (!writer || waiting + weight(data) > OUTBOUND) return false;
      for (const piece of pieces(data)) {
        const size = weight(piece);
        waiting += size;
        const written = () => (waiting -= size);
        writer.write(piece).then(written, written);
      }
      return true;
    },
    close(code = 1000) {
      given ??= code;
      try {
        socket.close({ closeCode: code });
      } catch {
        // It was not open yet, or not any more: then it ends by itself.
      }
    },
  };
}

function bounded(url, protocols, take) {
  const socket = new WebSocket(url, protocols);
  const queue = new Queue(INBOUND);
  let given = null;
  socket.binaryType = 'arraybuffer';
  const close = (code = 1000) => {
    given ??= code;
    queue.close();
    socket.close(code);
  };
  socket.onmessage = ({ data }) => {
    if (!queue.push(bytes(data), weight(data))) close(TOO_MUCH);
  };
  const opened = new Promise((tell) => {
    socket.onopen = () => tell(true);
    socket.addEventListener('close', () => tell(false));
  });
  const closed = new Promise((tell) => {
    socket.addEventListener('close', ({ code, reason }) => {
      queue.close();
      tell({ code, reason });
    });
  });
  const run = async () => {
    for (;;) {
      const message = await queue.take();
      if (message === undefined) break;
      await take(message);
    }
    const ending = await closed;
    return given === null ? ending : { code: given, reason: '' };
  };
  return {
    opened,
    ended: run(),
    send(data) {
      if (socket.readyState !== WebSocket.OPEN || socket.bufferedAmount + weight(data) > OUTBOUND) return false;
      for (const piece of pieces(data)) socket.send(piece);
      return true;
    },
    close,
  };
}
