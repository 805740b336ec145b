import { events, literal, rows } from "./api.js";
import { Lines, clean, clock, el, number, oneLine, save } from "./dom.js";

const LEVELS = ["debug", "info", "warn", "error"];

export function drawEntry(entry, row) {
  const level = entry.level || "info";
  const fields = Object.entries(entry.fields || {}).map(([key, value]) => ` ${key}=${value}`).join("");
  row.className = "row";
  row.title = clean(`${entry.timestamp}\n${entry.message}${fields}`);
  row.append(el("time", {}, clock(entry.timestamp)), " ", el("span", { className: level === "error" ? "error-level" : level }, level.slice(0, 5).padEnd(5)), " ",
    el("span", { className: "svc" }, oneLine(entry.service)), "  ", oneLine(entry.message), el("span", { className: "svc" }, oneLine(fields)));
}

const asText = (entry) => `${entry.timestamp} ${entry.level} ${entry.service} ${entry.message}\n`;

export default function logs(panel, { rest, state, line, go }) {
  // #logs/api@1234 is one line of one service.
  const [wantedService, wantedPlace] = decodeURIComponent(rest || "").split(/@(?=\d+$)/);
  const service = el("input", { placeholder: "service, api-*", value: wantedService || "", ariaLabel: "Service", onchange: open });
  const level = el("select", { ariaLabel: "Level and above", onchange: open }, ...LEVELS.map((name) => el("option", {}, name)));
  const search = el("input", { type: "search", placeholder: "search (Enter: in the history)", ariaLabel: "Search", oninput: narrow, onkeydown: (event) => { if (event.key === "Enter") past(); } });
  search.dataset.search = "";
  const hold = el("button", { title: "space", onclick: () => lines.hold(lines.follow) }, "Pause");
  hold.dataset.hold = "";
  const detail = el("pre"), tell = (entry) => { detail.textContent = clean(asText(entry)) + (Object.keys(entry.fields || {}).length ? "\n" + clean(JSON.stringify(entry.fields, null, 1)) : ""); };
  const lines = new Lines((entry, row) => {
    drawEntry(entry, row);
    row.onclick = () => { tell(entry); go(`#logs/${encodeURIComponent(entry.service)}@${entry.sequence}`); lines.marked = lines.base + lines.items.indexOf(entry); lines.ask(); };
  }, { onHold: (missed) => { hold.textContent = lines.follow ? "Pause" : `${number(missed)} new, go on`; } });
  const found = el("span", { className: "note" });
  let all = [], source = null, waiting = [], timer = 0, stop = null, searching = false;
  panel.append(el("div", { className: "bar" }, service, level, search, hold, el("button", { onclick: past }, "History"), found, el("span", { className: "grow" }),
    el("button", { title: "what is shown", onclick: () => save("log.txt", lines.items.map(asText)) }, "Save view"),
    el("a", { className: "note" }, "all as jsonl")), lines.node, detail);
  const everything = panel.querySelector("a");

  const fits = (entry) => !search.value || (entry.message + " " + entry.service).toLowerCase().includes(search.value.toLowerCase());
  function narrow() { searching = false; found.textContent = ""; lines.set(all.filter(fits)); lines.hold(false); }

  function open() {
    source?.close(); stop?.abort();
    all = []; waiting = []; searching = false; detail.textContent = ""; lines.set([]); lines.hold(false);
    const query = new URLSearchParams({ last: "500" });
    for (const name of service.value.split(/[\s,]+/).filter(Boolean)) query.append("service", name);
    if (level.value !== "debug") query.set("level", level.value);
    line("logs", ...service.value.split(/[\s,]+/).filter(Boolean).map(literal), "-f", ...(level.value === "debug" ? [] : ["-l", level.value]));
    everything.href = "/download/logs?" + query;
    everything.download = "log.jsonl";
    if (wantedPlace) around().catch((error) => state(clean(error.message), true));
    source = events("/v1/logs?" + query, {
      record: (entry) => { waiting.push(entry); timer ||= setTimeout(flush, 80); },
      gap: (gap) => state(`records ${gap.first} to ${gap.last} were removed before they were read`, true),
      error: (told) => told.message && state(clean(told.message), true),
      open: () => state("live"),
      broken: (final) => state(final ? "the server refused this stream" : "connection lost, coming back\u2026", true),
    });
  }

  function flush() {
    timer = 0;
    all.push(...waiting);
    if (all.length > 10000) all.splice(0, all.length - 10000);
    if (!searching) lines.add(waiting.filter(fits));
    waiting = [];
  }

  const glob = (text) => text.replaceAll("[", "[[]").replaceAll("?", "[?]");
  function where() {
    const parts = [], parameters = [], add = (sql, text) => { parts.push(sql); parameters.push({ text }); };
    const names = service.value.split(/[\s,]+/).filter(Boolean);
    if (names.length) { parts.push("(" + names.map(() => "service glob ?").join(" or ") + ")"); names.forEach((name) => parameters.push({ text: glob(name) })); }
    if (level.value !== "debug") { parts.push("severity >= ?"); parameters.push({ integer: String(LEVELS.indexOf(level.value)) }); }
    // Not instr(lower(...)): that takes three times as long over a long history.
    if (search.value) add("message like ? escape '\\'", `%${search.value.replace(/[\\%_]/g, "\\$&")}%`);
    return [parts.length ? " where " + parts.join(" and ") : "", parameters];
  }

  // The history is searched by SQL, newest first, and shown as it is found.
  async function past() {
    stop?.abort();
    stop = new AbortController();
    searching = true; lines.set([]); found.textContent = "searching\u2026";
    const [condition, parameters] = where();
    const sql = `select sequence, service, level, time, message, fields from logs${condition} order by sequence desc limit 2000`;
    let given = 0;
    const value = ({ text, integer }) => integer ?? `'${text.replaceAll("'", "''")}'`;
    line("query", literal(sql.replace(" limit 2000", "").replace(/\?/g, () => value(parameters[given++]))));
    try {
      const entries = [];
      let drawn = 0;
      const draw = () => { drawn = performance.now(); lines.set([...entries].reverse()); found.textContent = `${number(entries.length)} found`; };
      // One row a message: in a long history the second one may be far away.
      for await (const { rows: part } of rows(sql, { parameters, batch: 1, signal: stop.signal })) {
        for (const [sequence, name, rank, timestamp, message, fields] of part) entries.push({ sequence, service: name, level: rank, timestamp, message, fields: fields ? JSON.parse(fields) : {} });
        if (entries.length && performance.now() - drawn > 100) draw();
      }
      draw();
      if (entries.length === 2000) found.textContent = "the newest 2,000 found";
    } catch (error) { if (error.name !== "AbortError") found.textContent = clean(error.message); }
  }

  async function around() {
    searching = true;
    const sql = "select * from (select sequence, service, level, time, message, fields from logs where service = ? and sequence <= ? order by sequence desc limit 200) union all select * from (select sequence, service, level, time, message, fields from logs where service = ? and sequence > ? order by sequence limit 100) order by 1";
    const parameters = [{ text: wantedService }, { integer: wantedPlace }, { text: wantedService }, { integer: wantedPlace }];
    const entries = [];
    for await (const { rows: part } of rows(sql, { parameters })) {
      for (const [sequence, name, rank, timestamp, message, fields] of part) entries.push({ sequence, service: name, level: rank, timestamp, message, fields: fields ? JSON.parse(fields) : {} });
    }
    lines.set(entries);
    const at = entries.findIndex((entry) => entry.sequence === wantedPlace);
    if (at < 0) state(`line ${wantedPlace} is not kept any more`, true); else { lines.show(at); tell(entries[at]); }
  }

  open();
  return () => { source?.close(); stop?.abort(); clearTimeout(timer); };
}
