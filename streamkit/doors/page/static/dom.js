// Elements are made here, and text is only ever text.

export function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key in node && key !== "list") node[key] = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

// What must not be invisible or turn the line around is shown as what it is.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]|[\u{e0000}-\u{e007f}]/gu;
const ANSI = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[@-Z\\-_])/g;
export const clean = (text) => String(text ?? "").replace(ANSI, "").replace(HIDDEN, (c) => "\\u" + c.codePointAt(0).toString(16).padStart(4, "0"));
export const oneLine = (text) => clean(String(text ?? "").replaceAll("\n", "\u23ce "));

export const pad = (number) => String(number).padStart(2, "0");
export function clock(text) {
  const at = new Date(text);
  return isNaN(at) ? "" : `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, "0")}`;
}
export function lasting(seconds) {
  if (!isFinite(seconds) || seconds < 0) return "";
  const s = Math.round(seconds);
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m ${pad(s % 60)}s`;
  return `${Math.floor(s / 3600)}h ${pad(Math.floor((s % 3600) / 60))}m`;
}
export const number = (n) => Number(n).toLocaleString("en");

export function save(name, parts, type = "text/plain") {
  const url = URL.createObjectURL(new Blob(parts, { type }));
  const link = el("a", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

// A list of any length of which only what is seen is in the page. `draw(item, node)` fills a row.
export class Lines {
  constructor(draw, { most = 5000, onHold = () => {} } = {}) {
    this.most = most; this.items = []; this.base = 0; this.draw = draw; this.height = 19;
    this.follow = true; this.missed = 0; this.onHold = onHold; this.marked = null;
    this.space = el("div");
    this.node = el("div", { className: "lines", tabIndex: 0, role: "log" }, this.space);
    this.node.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.node.addEventListener("keydown", (event) => this.pressed(event));
    this.rows = new Map(); this.asked = false;
    new ResizeObserver(() => this.ask()).observe(this.node);
  }
  add(items) {
    this.items.push(...items);
    if (!this.follow) { this.missed += items.length; this.onHold(this.missed); }
    const over = this.items.length - this.most;
    // While somebody reads, nothing is taken away below their eyes until twice as much is here.
    if (over > 0 && (this.follow || over > this.most)) {
      this.items.splice(0, over); this.base += over;
      if (!this.follow) this.node.scrollTop -= over * this.height;
    }
    this.ask();
  }
  set(items) { this.items = items; this.base = 0; this.rows.forEach((row) => row.remove()); this.rows.clear(); this.ask(); }
  hold(on) { this.follow = !on; if (!on) this.missed = 0; this.onHold(this.missed); this.ask(); }
  // The arrows go from row to row, Enter does what a click does.
  pressed(event) {
    if (event.key === "Enter") this.rows.get(this.marked)?.click();
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step || !this.items.length) return;
    event.preventDefault();
    const { scrollTop, clientHeight } = this.node, height = this.height, seen = Math.floor((scrollTop + clientHeight) / height) - 1;
    const at = Math.max(0, Math.min(this.items.length - 1, (this.marked ?? -1) < this.base ? seen : this.marked - this.base + step));
    this.hold(true);
    this.marked = this.base + at;
    const top = Math.max((at + 1) * height - clientHeight, Math.min(scrollTop, at * height));
    if (top !== scrollTop) { this.node.scrollTop = top; this.moving = true; }
  }
  scrolled() {
    // What `paint` has moved says nothing about what somebody wants, who may have paused meanwhile.
    const moved = this.moving;
    this.moving = false;
    const end = this.node.scrollTop + this.node.clientHeight >= this.items.length * this.height - 30;
    if (!moved && !end && this.follow) this.hold(true);
    else if (!moved && end && !this.follow && this.node.scrollTop > 0) this.hold(false);
    this.ask();
  }
  show(index) { this.follow = false; this.space.style.height = this.items.length * this.height + "px"; this.node.scrollTop = index * this.height - this.node.clientHeight / 2; this.marked = this.base + index; this.ask(); }
  ask() { if (!this.asked) { this.asked = true; requestAnimationFrame(() => { this.asked = false; this.paint(); }); } }
  paint() {
    this.space.style.height = this.items.length * this.height + "px";
    if (this.follow) {
      const before = this.node.scrollTop;
      this.node.scrollTop = this.items.length * this.height;
      if (this.node.scrollTop !== before) this.moving = true;
    }
    const first = Math.max(0, Math.floor(this.node.scrollTop / this.height) - 5);
    const last = Math.min(this.items.length, first + Math.ceil(this.node.clientHeight / this.height) + 10);
    for (const [key, row] of this.rows) {
      if (key < this.base + first || key >= this.base + last) { row.remove(); this.rows.delete(key); }
    }
    for (let i = first; i < last; i++) {
      let row = this.rows.get(this.base + i);
      if (!row) {
        row = el("div", { className: "row" });
        this.draw(this.items[i], row);
        this.rows.set(this.base + i, row);
        this.node.append(row);
      }
      row.style.top = i * this.height + "px";
      row.classList.toggle("marked", this.marked === this.base + i);
    }
  }
}
