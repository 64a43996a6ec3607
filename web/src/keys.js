// Keys that phones have not.

import { make } from './view.js';

/**
 * Fills the row of keys.
 * @param {HTMLElement} row
 * @param {{send: (text: string) => void, control: (on: boolean) => void, arrows: () => string, focus: () => void}} to
 */
export function keyRow(row, to) {
  const arrow = (letter) => () => to.send(to.arrows() + letter);
  const keys = [
    ['Esc', 'Escape', () => to.send('\x1b')],
    ['Tab', 'Tab', () => to.send('\t')],
    ['Ctrl', 'Control, with the next letter', null],
    ['←', 'Left', arrow('D')],
    ['↑', 'Up', arrow('A')],
    ['↓', 'Down', arrow('B')],
    ['→', 'Right', arrow('C')],
  ];
  for (const [label, name, act] of keys) {
    const key = make('button', { type: 'button', className: 'quiet', textContent: label, ariaLabel: name });
    if (!act) key.ariaPressed = 'false';
    // The focus stays in the terminal, and the phone's keyboard open.
    key.addEventListener('pointerdown', (event) => event.preventDefault());
    key.addEventListener('click', () => {
      if (act) act();
      else {
        const on = key.ariaPressed !== 'true';
        key.ariaPressed = String(on);
        to.control(on);
      }
      to.focus();
    });
    row.append(key);
  }
}
