/** Find and make elements. */

export const $ = (id) => document.getElementById(id);

/** Make an element; texts become text, never markup. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}
