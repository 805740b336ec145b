import { PRODUCER, call, events, literal } from "./api.js";
import { Lines, clean, clock, el, number, oneLine } from "./dom.js";

export default function updates(panel, { rest, state, line, go }) {
  const pattern = el("input", { className: "wide", placeholder: "topics: orders.*  >", value: decodeURIComponent(rest || "") || ">", ariaLabel: "Topics", onchange: open });
  pattern.dataset.search = "";
  const since = el("select", { ariaLabel: "From", onchange: open }, ...[["last=100", "last 100"], ["all=1", "everything"], ["", "from now on"]].map(([value, text]) => el("option", { value }, text)));
  const hold = el("button", { onclick: () => lines.hold(lines.follow) }, "Pause");
  hold.dataset.hold = "";
  const lines = new Lines((update, row) => {
    row.append(el("time", {}, clock(update.timestamp)), " ", el("b", {}, oneLine(update.topic)), "  ", oneLine(update.message));
    row.title = clean(pretty(update.message) + (update.metadata ? "\n" + JSON.stringify(update.metadata) : ""));
    row.onclick = () => { detail.textContent = clean(`${update.topic}  ${update.timestamp}\n${pretty(update.message)}${update.metadata ? "\n" + JSON.stringify(update.metadata, null, 1) : ""}`); };
  }, { onHold: (missed) => { hold.textContent = lines.follow ? "Pause" : `${number(missed)} new, go on`; } });
  const topics = el("aside", { ariaLabel: "Topics" }), detail = el("pre");
  const topic = el("input", { placeholder: "topic", ariaLabel: "Topic to publish to" }), text = el("input", { className: "wide", placeholder: "message", ariaLabel: "Message" });
  const send = el("form", { className: "bar", onsubmit: async (event) => {
    event.preventDefault();
    try { await call(PRODUCER + "Publish", { updates: [{ topic: topic.value, message: text.value }] }); text.value = ""; state("published"); } catch (error) { state(clean(error.message), true); }
  } }, topic, text, el("button", { type: "submit" }, "Publish"));
  panel.append(el("div", { className: "bar" }, pattern, since, hold), el("div", { className: "split" }, topics, el("div", {}, lines.node, detail)), send);
  const latest = new Map(), nodes = new Map();
  let source = null, waiting = [], timer = 0;

  function pretty(message) {
    try { return JSON.stringify(JSON.parse(message), null, 2); } catch { return message ?? ""; }
  }

  function open() {
    source?.close(); lines.set([]); waiting = []; latest.clear(); nodes.clear(); topics.replaceChildren();
    const wanted = pattern.value.split(/[\s,]+/).filter(Boolean);
    go("#updates/" + encodeURIComponent(pattern.value));
    line("subscribe", ...wanted.map(literal), ...(since.value === "last=100" ? ["--last", "100"] : since.value ? ["--all"] : []));
    const query = wanted.map((name) => "topic=" + encodeURIComponent(name)).join("&");
    source = events(`/v1/updates?${query}&${since.value}`, {
      record: (update) => { waiting.push(update); timer ||= setTimeout(flush, 80); },
      gap: (gap) => state(`records ${gap.first} to ${gap.last} were removed before they were read`, true),
      error: (told) => told.message && state(clean(told.message), true),
      open: () => state("live"),
      broken: (final) => state(final ? "the server refused this stream" : "connection lost, coming back\u2026", true),
    });
  }

  function flush() {
    timer = 0;
    lines.add(waiting);
    for (const update of waiting) latest.set(update.topic, update);
    waiting = [];
    for (const [name, update] of latest) {
      let node = nodes.get(name);
      if (!node && nodes.size < 500) {
        node = el("button", { onclick: () => { pattern.value = name; topic.value = name; open(); } });
        nodes.set(name, node);
        topics.append(node);
      }
      if (node) node.textContent = `${oneLine(name)}: ${oneLine(update.message).slice(0, 60)}`;
      if (node) node.title = clean(`${name}\n${update.timestamp}\n${update.message ?? ""}`);
    }
  }

  open();
  return () => { source?.close(); clearTimeout(timer); };
}
