// Elements from text: text that a peer can choose becomes text nodes and attributes, never markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** Return an element with properties, `attributes` that have no property, and children: elements or text. */
export function el(tag, properties = {}, ...children) {
  const { attributes = {}, ...rest } = properties;
  const made = Object.assign(document.createElement(tag), rest);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Return an element of SVG with attributes and children. */
export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Return text whose parts in `backquotes` are code. */
export function prose(text) {
  return text.split("`").map((part, place) => (place % 2 ? el("code", {}, part) : part));
}

/** Make a node show a text.  A node that already shows it is left alone, so that readers are not disturbed. */
export function show(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Make the children of a parent those of the items, in order.  Each item keeps its element, and the focus. */
export function sync(parent, items, keyOf, make, update = () => {}) {
  const focused = document.activeElement;
  const left = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let at = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let child = left.get(key);
    if (child) left.delete(key);
    else {
      child = make(item);
      child.dataset.key = key;
    }
    update(child, item);
    if (child === at) at = at.nextElementSibling;
    else parent.insertBefore(child, at);
  }
  for (const child of left.values()) child.remove();
  if (focused && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
}

/** Fill a list of facts; undefined values are left out, and null means not known. */
export function showFacts(list, facts) {
  const known = facts.filter(([, value]) => value !== undefined);
  sync(
    list,
    known,
    ([name]) => name,
    ([name]) => el("div", {}, el("dt", {}, name), el("dd")),
    (row, [, value]) => {
      const text = value === null ? "not known" : String(value);
      row.classList.toggle("wide", text.length > 40);
      show(row.lastElementChild, text);
    },
  );
}
