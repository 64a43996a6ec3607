// A session's terminal. Binary messages are its bytes, text messages what is said beside them.

import { FitAddon } from '@xterm/addon-fit';
import { WebLinksAddon } from '@xterm/addon-web-links';
import { Terminal } from '@xterm/xterm';

import { bound } from './bounds.js';
import { endingOf, here, protocols } from './ending.js';
import { Flow } from './flow.js';
import { keyRow } from './keys.js';
import { open } from './socket.js';
import { themes } from './themes.js';

const encoder = new TextEncoder();
const MOST = 1000;
const SPOKEN = 'tidegate-screen-reader';

/** Makes the terminal; its lines stay while streams come and go. */
export function create({ page, view, settings }) {
  return new TerminalView(page, view, settings);
}

class TerminalView {
  #socket = null;
  #mode;
  #control = false;

  constructor(page, view, settings) {
    this.view = view;
    this.#mode = page.mode;
    const dark = matchMedia('(prefers-color-scheme: dark)');
    this.term = new Terminal({
      cursorBlink: !matchMedia('(prefers-reduced-motion: reduce)').matches,
      fontFamily: 'ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace',
      fontSize: 14,
      minimumContrastRatio: 4.5,
      screenReaderMode: settings.get(SPOKEN) === 'on',
      scrollback: 5000,
      theme: themes(dark.matches),
    });
    dark.addEventListener('change', () => (this.term.options.theme = themes(dark.matches)));
    bound(this.term.parser);
    this.fit = new FitAddon();
    this.term.loadAddon(this.fit);
    const follow = (_, uri) => window.open(uri, '_blank', 'noopener,noreferrer');
    this.term.loadAddon(new WebLinksAddon(follow));
    this.term.open(view.stage);
    this.term.textarea.setAttribute('aria-label', `Terminal of ${page.name}`);
    this.term.textarea.setAttribute('aria-describedby', 'hint');
    this.term.onData((text) => this.#type(encoder.encode(this.#controlled(text))));
    this.term.onBinary((text) => this.#type(Uint8Array.from(text, (c) => c.charCodeAt(0))));
    this.term.onResize(() => this.#tellSize());
    // Not in the observer's own turn: fitting changes what it observes.
    new ResizeObserver(() => requestAnimationFrame(() => this.#fit())).observe(view.stage);
    view.hint('Ctrl+] leaves the terminal for the buttons of the page; Tab leads back into it.');
    view.tool('Screen reader', (button) => this.#spoken(button, settings), {
      ariaPressed: String(this.term.options.screenReaderMode),
      title: 'Reads out what the terminal prints',
    });
    keyRow(view.keys, {
      send: (text) => this.term.input(text),
      control: (on) => (this.#control = on),
      arrows: () => (this.term.modes.applicationCursorKeysMode ? '\x1bO' : '\x1b['),
      focus: () => this.focus(),
    });
  }

  focus() {
    this.term.focus();
  }

  /** Watches until the stream ends. */
  async watch({ url, ticket, mode }) {
    this.#setMode(mode);
    const flow = new Flow();
    let exit = null;
    const take = (message) => {
      if (typeof message === 'string') {
        exit = this.#told(message) ?? exit;
        return undefined;
      }
      flow.add(message.length);
      this.term.write(message, () => flow.done(message.length));
      return flow.room();
    };
    const socket = open(here(url), protocols(ticket), take);
    const opened = await socket.opened;
    if (opened) {
      this.#socket = socket;
      this.#fit();
      this.#tellSize();
      this.view.banner('');
    }
    const ending = await socket.ended;
    this.#socket = null;
    return exit ?? endingOf(ending, opened);
  }

  /** Ends the stream that is watched; `watch` returns. */
  leave(code) {
    this.#socket?.close(code);
  }

  #told(text) {
    let frame;
    try {
      frame = JSON.parse(text);
    } catch {
      return null;
    }
    if (frame?.type === 'mode') this.#setMode(frame.mode);
    if (frame?.type === 'exit') return { kind: 'exit', code: Number(frame.code), signal: frame.signal };
    return null;
  }

  #setMode(mode) {
    this.#mode = mode === 'view' ? 'view' : 'control';
    this.term.options.disableStdin = this.#mode === 'view';
    this.view.mode(this.#mode);
  }

  /** What is typed; also what the terminal itself answers. A page that may only watch sends nothing. */
  #type(bytes) {
    if (this.#mode === 'view' || !this.#socket) return;
    if (!this.#socket.send(bytes)) this.view.banner('That was too much to send at once, and was not sent.');
  }

  #controlled(text) {
    if (!this.#control || text.length !== 1) return text;
    this.#control = false;
    this.view.keys.querySelector('[aria-pressed=true]')?.setAttribute('aria-pressed', 'false');
    const code = text.toUpperCase().charCodeAt(0);
    return code >= 0x40 && code <= 0x5f ? String.fromCharCode(code & 0x1f) : text;
  }

  #fit() {
    if (!this.view.stage.hidden) this.fit.fit();
  }

  #tellSize() {
    if (this.#mode === 'view' || !this.#socket) return;
    const [cols, rows] = [this.term.cols, this.term.rows].map((side) => Math.min(Math.max(side, 1), MOST));
    this.#socket.send(JSON.stringify({ type: 'resize', cols, rows }));
  }

  #spoken(button, settings) {
    const on = !this.term.options.screenReaderMode;
    this.term.options.screenReaderMode = on;
    button.ariaPressed = String(on);
    settings.set(SPOKEN, on ? 'on' : 'off');
    this.focus();
  }
}
