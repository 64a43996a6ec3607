// A session's web application, in a frame of an origin that is not this page's.

import { make } from './view.js';

/** What an application needs, and no way to this page. */
const RIGHTS = 'allow-scripts allow-forms allow-popups allow-popups-to-escape-sandbox allow-modals allow-downloads allow-pointer-lock';
const FRAME = 'application';

/** Makes the frame's place. */
export function create({ page, view, api }) {
  return new ApplicationView(page, view, api);
}

class ApplicationView {
  #left = null;

  constructor(page, view, api) {
    this.page = page;
    this.view = view;
    this.api = api;
    view.hint('Tab leads through the application and out of it again.');
    view.tool('Load again', () => this.#again(FRAME));
    view.tool('Open in a tab', () => this.#again('_blank'));
  }

  focus() {
    this.frame?.focus();
  }

  /** Shows the application until somebody leaves; it is the session's state that ends it. */
  async watch(connection) {
    this.view.mode(connection.mode);
    const shutIn = new URL(connection.url, location.href).origin === location.origin;
    this.frame = make('iframe', { name: FRAME, title: `Application of ${this.page.name}` });
    // On this page's own origin it must not be somebody of this origin.
    this.frame.setAttribute('sandbox', shutIn ? RIGHTS : `${RIGHTS} allow-same-origin`);
    this.frame.setAttribute('allow', 'autoplay; clipboard-read; clipboard-write; fullscreen');
    this.view.stage.replaceChildren(this.frame);
    this.view.banner(
      shutIn
        ? 'This server has no address of its own for applications, so this one is shut in: cookies, storage, sign-in and WebSockets may not work. Whoever runs the server can give it a content domain.'
        : '',
    );
    enter(connection, FRAME);
    this.view.offerFocus(() => this.focus());
    await new Promise((leave) => (this.#left = leave));
    this.view.stage.replaceChildren();
    return { kind: 'over' };
  }

  /** Takes the application away; `watch` returns. */
  leave() {
    this.#left?.();
  }

  async #again(target) {
    try {
      enter(await this.api.connect(), target);
    } catch (error) {
      this.view.banner(`This did not work: ${error.message}`);
    }
  }
}

/** The ticket goes in the body of a form: addresses are written down on their way. */
function enter({ url, ticket }, target) {
  const form = make('form', { method: 'post', action: url, target, hidden: true });
  if (target === '_blank') form.rel = 'noopener';
  form.append(make('input', { type: 'hidden', name: 'ticket', value: ticket }));
  document.body.append(form);
  form.submit();
  form.remove();
}
