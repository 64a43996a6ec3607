// The page's policy lets no style in that is not a file of this server or carries the page's nonce. The terminal makes
// style elements and style attributes; these two detours give them what the policy asks for.

const nonce = document.querySelector('script[nonce]')?.nonce ?? '';

const create = Document.prototype.createElement;
Document.prototype.createElement = function createElement(name, options) {
  const element = create.call(this, name, options);
  if (element instanceof HTMLStyleElement) element.nonce = nonce;
  return element;
};

const set = Element.prototype.setAttribute;
Element.prototype.setAttribute = function setAttribute(name, value) {
  // Set through the object model a style is a script's doing, and scripts are let in by their file.
  if (name === 'style' && this instanceof HTMLElement) this.style.cssText = value;
  else set.call(this, name, value);
};
