// Dom: the few lines that stand where a page this size would otherwise need a framework.
//
// Invariants: text always becomes text nodes, never markup, so what hosts report cannot become part of the page.

// h("a", { href: "#/", class: "x" }, "text", node): an element. A property that starts with "on" is a listener; one
// that is false or null is left out.
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

// The same for SVG.
export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), props, children);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// Sets text only where it changed, so that a selection or a screen reader is not disturbed by every refresh.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Makes the children of `parent` one element per item, in order. Elements are kept by key and only moved when the order
// changed, so that focus and hover survive a refresh. `create(item)` gives { element, update(item) }.
export class Keyed {
  constructor(parent, keyOf, create) {
    Object.assign(this, { parent, keyOf, create, rows: new Map() });
  }

  show(items) {
    const kept = new Map();
    items.forEach((item, index) => {
      const key = this.keyOf(item);
      const row = this.rows.get(key) ?? this.create(item);
      kept.set(key, row);
      this.rows.delete(key);
      row.update(item);
      const there = this.parent.children[index];
      if (there !== row.element) this.parent.insertBefore(row.element, there ?? null);
    });
    for (const row of this.rows.values()) row.element.remove();
    this.rows = kept;
  }
}
