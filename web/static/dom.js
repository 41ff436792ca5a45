/** Typed access to the elements of a page. */

/**
 * The element with an id.
 * @template {Element} T
 * @param {string} id
 * @param {{ new (): T, name: string }} type its class
 * @returns {T}
 * @throws {TypeError} if the page has no such element
 */
export function byId(id, type) {
  return within(document, `#${id}`, type);
}

/**
 * The first element that matches a selector inside a parent.
 * @template {Element} T
 * @param {ParentNode} parent
 * @param {string} selector
 * @param {{ new (): T, name: string }} type its class
 * @returns {T}
 * @throws {TypeError} if the parent has no such element
 */
export function within(parent, selector, type) {
  const element = parent.querySelector(selector);
  if (element instanceof type) return element;
  throw new TypeError(`${selector} is not a ${type.name} of this page`);
}

/**
 * A named input of a form.
 * @param {HTMLFormElement} form
 * @param {string} name
 */
export function inputOf(form, name) {
  return within(form, `[name="${name}"]`, HTMLInputElement);
}

/**
 * The message of anything that was thrown.
 * @param {unknown} error
 */
export function messageOf(error) {
  return error instanceof Error ? error.message : String(error);
}
