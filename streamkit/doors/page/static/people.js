import { ADMIN, call } from "./api.js";
import { clean, el, lasting, number } from "./dom.js";

const EVERY = 2000;

export default function people(panel, { state, line }) {
  const facts = el("p"), body = el("tbody");
  const columns = ["who", "peer", "by", "method", "resource", "position", "behind", "received", "sent", "for"];
  panel.append(facts, el("div", { className: "grid" }, el("table", {}, el("thead", {}, el("tr", {}, ...columns.map((name) => el("th", {}, name)))), body)));
  line("top");
  let timer = 0, over = false;

  async function look() {
    try {
      const status = await call(ADMIN + "GetStatus");
      const streams = (status.streams || []).map((one) => `${one.name}: ${number(one.newest || 0)}, ${one.subscribers || 0} readers`).join("; ");
      facts.textContent = clean(`${status.connections || 0} connections; ${streams}; store ${number(Math.round(Number(status.storeBytes || 0) / 1e6))} MB`);
      const reply = await call(ADMIN + "ListCalls");
      body.replaceChildren(...(reply.calls || []).map((one) => el("tr", {}, ...[
        one.identity || "\u2013", one.peer, one.carrier, (one.method || "").split("/").pop(), one.resource, one.position?.sequence, one.position ? one.lag || 0 : "", one.received || 0, one.sent || 0, lasting(parseFloat(one.age)),
      ].map((value) => el("td", {}, clean(value ?? ""))))));
    } catch (error) {
      body.replaceChildren(el("tr", {}, el("td", { colSpan: 10, className: "note" }, clean(error.message))));
    }
    if (!over) timer = setTimeout(look, EVERY);
  }
  look();
  return () => { over = true; clearTimeout(timer); };
}
