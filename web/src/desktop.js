// A session's desktop: RFB, spoken by noVNC.

import RFB from '@novnc/novnc';

import { endingOf, here, protocols } from './ending.js';
import { LOST } from './socket.js';
import { make } from './view.js';

/** Longest text from the desktop's clipboard that is taken. */
const CLIPBOARD = 256 * 1024;

/** Makes the desktop's place; desktops come and go in it. */
export function create({ page, view }) {
  return new DesktopView(page, view);
}

class DesktopView {
  #rfb = null;
  #socket = null;
  #mode;

  constructor(page, view) {
    this.page = page;
    this.view = view;
    this.#mode = page.mode;
    view.hint('Ctrl+] leaves the desktop for the buttons of the page; Tab leads back into it.');
    view.stage.tabIndex = 0;
    view.stage.setAttribute('aria-label', `Desktop of ${page.name}`);
    view.stage.setAttribute('aria-describedby', 'hint');
    view.stage.setAttribute('role', 'application');
    view.stage.addEventListener('focus', () => this.focus());
    this.#clipboardTool();
    this.#keyboardTool();
  }

  focus() {
    this.#rfb?.focus();
  }

  /** Watches until the stream ends. */
  async watch({ url, ticket, mode }) {
    this.#mode = mode;
    this.view.mode(mode);
    const socket = new WebSocket(here(url), protocols(ticket));
    this.#socket = socket;
    const closed = new Promise((tell) => socket.addEventListener('close', tell));
    const rfb = new RFB(this.view.stage, socket, { shared: true });
    this.#rfb = rfb;
    rfb.viewOnly = mode === 'view';
    rfb.scaleViewport = true;
    rfb.resizeSession = mode === 'control';
    rfb.showDotCursor = true;
    rfb.background = 'var(--paper)';
    let trouble = null;
    let opened = false;
    const over = new Promise((tell) => rfb.addEventListener('disconnect', tell));
    rfb.addEventListener('connect', () => {
      opened = true;
      this.view.banner('');
      this.view.offerFocus(() => this.focus());
    });
    rfb.addEventListener('desktopname', ({ detail }) => (this.view.stage.title = String(detail.name).slice(0, 100)));
    rfb.addEventListener('clipboard', ({ detail }) => this.#copied(String(detail.text)));
    rfb.addEventListener('securityfailure', ({ detail }) => {
      trouble = `the desktop refuses: ${detail.reason || 'it gives no reason'}`;
    });
    rfb.addEventListener('credentialsrequired', () => {
      trouble = 'the desktop asks for a password of its own, which this page cannot give it';
      rfb.disconnect();
    });
    const { detail } = await over;
    // What is told of its end comes with the socket; one that never ends is given up.
    const end = await Promise.race([closed, new Promise((tell) => setTimeout(tell, 2_000, null))]);
    this.#rfb = null;
    this.#socket = null;
    this.view.stage.replaceChildren();
    if (trouble) return { kind: 'refused', why: trouble };
    // A desktop that says nonsense is hung up on by this side: the code says nothing of that then.
    if (!detail.clean && (!end || end.code === 1000 || end.code === 1005)) return endingOf({ code: LOST, reason: '' }, opened);
    return endingOf(end ?? { code: LOST, reason: '' }, opened);
  }

  /** Ends the stream that is watched; `watch` returns. */
  leave() {
    this.#rfb?.disconnect();
    this.#socket?.close();
  }

  #copied(text) {
    const taken = text.slice(0, CLIPBOARD);
    this.clipboard.value = taken;
    // Only where the browser lets a page do it unasked; else the text waits behind its button.
    navigator.clipboard?.writeText(taken).catch(() => {});
  }

  #clipboardTool() {
    this.clipboard = make('textarea', { id: 'clipboard-text', rows: 6, maxLength: CLIPBOARD, spellcheck: false });
    const send = make('button', { type: 'submit', textContent: 'Give it to the desktop' });
    const done = make('button', { type: 'button', className: 'quiet', textContent: 'Close' });
    const label = make('label', { htmlFor: 'clipboard-text', textContent: 'Clipboard of the desktop' });
    const form = make('form', { method: 'dialog' }, label, this.clipboard, make('p', { className: 'buttons' }, send, done));
    const dialog = make('dialog', {}, form);
    done.addEventListener('click', () => dialog.close());
    form.addEventListener('submit', () => {
      if (this.#mode === 'control') this.#rfb?.clipboardPasteFrom(this.clipboard.value);
    });
    dialog.addEventListener('close', () => this.focus());
    document.body.append(dialog);
    this.view.tool('Clipboard', () => {
      send.disabled = this.#mode === 'view';
      dialog.showModal();
    });
  }

  /** The keyboard of a phone opens for a field of text alone: this one gives what is typed to the desktop. */
  #keyboardTool() {
    const field = make('input', { type: 'text', className: 'aside', autocomplete: 'off', autocapitalize: 'none', spellcheck: false });
    field.setAttribute('aria-label', 'What is typed here goes to the desktop');
    field.tabIndex = -1;
    const special = { Backspace: 0xff08, Tab: 0xff09, Enter: 0xff0d, Escape: 0xff1b };
    field.addEventListener('keydown', (event) => {
      if (!(event.key in special)) return;
      event.preventDefault();
      this.#rfb?.sendKey(special[event.key], null);
    });
    field.addEventListener('input', () => {
      for (const character of field.value) {
        const point = character.codePointAt(0);
        // X's names of keys: Latin-1 as it is, the rest of Unicode above this mark.
        this.#rfb?.sendKey(point < 0x100 ? point : 0x0100_0000 + point, null);
      }
      field.value = '';
    });
    this.view.tools.append(field);
    this.view.tool('Keyboard', () => field.focus(), { className: 'quiet touch' });
  }
}
