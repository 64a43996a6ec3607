// The parts of the page and what they show. Whatever came from a session, an agent or a user is set as text, never as HTML.

const $ = (id) => document.getElementById(id);

/** Longest text of somebody else's that is shown. */
const LONGEST = 500;

const short = (text) => (text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text);

/** Makes an element with texts and elements in it. */
export function make(name, properties = {}, ...inside) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...inside);
  return element;
}

/** The page around the session. */
export class View {
  #shown = '';
  #choose = null;
  #announced = '';

  constructor() {
    this.stage = $('stage');
    this.tools = $('tools');
    this.keys = $('keys');
    // In the capturing phase: inside of the session every other key is the session's.
    this.stage.addEventListener('keydown', (event) => this.#leaveOn(event), { capture: true });
  }

  /** The state in the page's head; it is read out when it changes. */
  state(text, kind) {
    if (this.#announced === text) return;
    this.#announced = text;
    $('state').textContent = text;
    $('state').dataset.kind = kind;
  }

  /** Whether this page may only watch. */
  mode(mode) {
    $('mode').hidden = mode !== 'view';
    document.body.dataset.mode = mode;
  }

  /** The keys that lead out of the session. */
  hint(text) {
    $('hint').textContent = text;
  }

  /**
   * A page of words in the place of the session. The same words twice leave everything as it is, focus included.
   * @param {{title: string, lines?: string[], busy?: boolean, buttons?: {name: string, label: string}[], code?: string, home?: boolean}} what
   */
  panel({ title, lines = [], busy = false, buttons = [], code = '', home = false }) {
    const shown = JSON.stringify([title, lines, busy, buttons, code, home]);
    const panel = $('panel');
    this.stage.hidden = true;
    document.body.dataset.shows = 'words';
    this.keys.hidden = true;
    panel.hidden = false;
    this.banner('');
    if (shown === this.#shown) return;
    this.#shown = shown;
    const focused = panel.contains(document.activeElement) && document.activeElement.dataset.name;
    const words = lines.filter(Boolean).map((line) => make('p', { textContent: short(line) }));
    if (code) words.push(make('pre', {}, make('code', { textContent: code })));
    $('panel-title').textContent = title;
    $('panel-words').replaceChildren(...words);
    $('panel-busy').hidden = !busy;
    const row = buttons.map((button) => this.#button(button));
    if (home) row.push(make('a', { href: '/home', textContent: 'Go to your page' }));
    $('panel-row').replaceChildren(...row);
    const again = row.find((button) => focused && button.dataset?.name === focused);
    if (again) again.focus();
    else if (buttons.length > 0 && this.#nobodyElse()) row[0].focus();
  }

  /** The session itself. */
  session() {
    this.#shown = '';
    this.stage.hidden = false;
    document.body.dataset.shows = 'session';
    this.keys.hidden = this.keys.childElementCount === 0 || document.body.dataset.mode === 'view';
    $('panel').hidden = true;
  }

  /** One line below the session; none takes it away. */
  banner(text, buttons = []) {
    const banner = $('banner');
    const hidden = text === '';
    if (!hidden) {
      $('banner-text').textContent = short(text);
      $('banner-row').replaceChildren(...buttons.map((button) => this.#button(button)));
    }
    if (banner.hidden !== hidden) banner.hidden = hidden;
  }

  /** The name of the next button that is pressed. */
  choice() {
    return new Promise((choose) => (this.#choose = choose));
  }

  /** A button of the page's head. */
  tool(label, act, properties = {}) {
    const button = make('button', { type: 'button', className: 'quiet', textContent: label, ...properties });
    button.addEventListener('click', () => act(button));
    this.tools.append(button);
    return button;
  }

  /** Whether the focus is nowhere in particular, so that taking it disturbs nobody. */
  #nobodyElse() {
    const focus = document.activeElement;
    return !focus || focus === document.body || !focus.isConnected || focus.closest('[hidden]') !== null;
  }

  /** Gives the focus to the session, if nothing else of the page has it. */
  offerFocus(focus) {
    if (this.#nobodyElse()) focus();
  }

  #button({ name, label }) {
    const button = make('button', { type: 'button', textContent: label });
    button.dataset.name = name;
    button.addEventListener('click', () => {
      this.#choose?.(name);
      this.#choose = null;
    });
    return button;
  }

  #leaveOn(event) {
    const leaves = event.ctrlKey && (event.key === ']' || event.key === 'F6');
    if (!leaves) return;
    event.preventDefault();
    event.stopPropagation();
    (this.tools.querySelector('button') ?? $('home')).focus();
  }
}
