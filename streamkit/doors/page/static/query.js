import { ADMIN, call, literal, rows } from "./api.js";
import { clean, el, number, oneLine } from "./dom.js";

const MOST = 10000;
const NUMERIC = /^(int|integer|real|double|float|decimal|numeric|hugeint|bigint|smallint)/i;

export default function query(panel, { rest, state, line, go }) {
  const given = new URLSearchParams(rest);
  // A link fills in a statement; only a person runs it.
  const sql = el("textarea", { rows: 5, spellcheck: false, ariaLabel: "SQL", value: given.get("sql") || "select * from jobs order by updated_at desc", onkeydown: (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run(); } });
  sql.dataset.search = "";
  const database = el("select", { ariaLabel: "Database", onchange: tables });
  const parameters = el("input", { className: "wide", placeholder: "parameters: name=value, or one a comma", ariaLabel: "Parameters", value: given.get("p") || "" });
  const start = el("button", { className: "main", title: "Ctrl+Enter", onclick: run }, "Run"), end = el("button", { disabled: true, onclick: () => stop?.abort() }, "Stop");
  const said = el("span", { className: "note", role: "status" }), grid = el("div", { className: "grid", tabIndex: 0 }), list = el("aside", { ariaLabel: "Tables" });
  const downloads = ["csv", "jsonl", "parquet"].map((format) => el("button", { onclick: () => download(format) }, format));
  panel.append(el("div", { className: "split" }, list, el("div", {}, sql,
    el("div", { className: "bar" }, start, end, database, parameters), el("div", { className: "bar" }, said, el("span", { className: "grow" }), el("span", { className: "note" }, "everything as"), ...downloads), grid)));
  let stop = null;

  function given_parameters() {
    return parameters.value.split(",").map((text) => text.trim()).filter(Boolean).map((text) => {
      const at = text.match(/^([a-z_]\w*)=(.*)$/i);
      const [name, value] = at ? [at[1], at[2]] : ["", text];
      const typed = /^-?\d{1,15}$/.test(value) && String(Number(value)) === value ? { integer: value } : /^-?\d{1,17}\.\d{1,17}$/.test(value) && String(Number(value)) === value ? { real: Number(value) } : value === "null" ? { null: true } : { text: value };
      return { ...(name ? { name } : {}), ...typed };
    });
  }

  function said_line() {
    const named = given_parameters().filter((one) => one.name).map(({ name, text, integer, real }) =>
      "-p " + literal(name + (/^(-?[\d.]+|null|true|false)$/i.test(text ?? "") ? ":text=" : "=") + (text ?? integer ?? real ?? "null")));
    line("query", literal(sql.value), ...named, ...(database.value ? ["--database", literal(database.value)] : []));
    go("#query?" + new URLSearchParams({ sql: sql.value, ...(parameters.value ? { p: parameters.value } : {}), ...(database.value ? { db: database.value } : {}) }));
  }

  async function run() {
    stop?.abort();
    const mine = stop = new AbortController();
    said_line();
    start.disabled = true; end.disabled = false;
    const begun = performance.now(), body = el("tbody"), head = el("tr");
    grid.replaceChildren(el("table", {}, el("thead", {}, head), body));
    let count = 0, numeric = [];
    const told = (more) => { said.className = "note"; said.textContent = `${number(count)} rows in ${((performance.now() - begun) / 1000).toFixed(2)} s${more}`; };
    try {
      for await (const part of rows(sql.value, { database: database.value, parameters: given_parameters(), signal: mine.signal })) {
        if (!head.children.length && part.columns.length) {
          head.append(...part.columns.map((column) => el("th", { title: clean(column.type) }, oneLine(column.name))));
          numeric = part.columns.map((column) => NUMERIC.test(column.type));
        }
        const room = Math.max(0, MOST - count);
        body.append(...part.rows.slice(0, room).map((row) => el("tr", {}, ...row.map((value, i) => el("td", {
          className: value === null ? "null" : numeric[i] ? "num" : "", title: value === null ? "" : clean(value).slice(0, 2000),
        }, value === null ? "null" : oneLine(value).slice(0, 300))))));
        count += part.rows.length;
        if (count > MOST) { count = MOST; mine.abort(); told(", the first of more: download everything"); break; }
        told("\u2026");
      }
      if (count < MOST) told("");
    } catch (error) {
      if (error.name === "AbortError") told(count < MOST ? ", stopped" : ", the first of more: download everything");
      else { said.className = "error"; said.textContent = clean(error.message); }
    } finally { if (stop === mine) { start.disabled = false; end.disabled = true; } }
  }

  function download(format) {
    said_line();
    const wanted = new URLSearchParams({ sql: sql.value, format, database: database.value });
    if (parameters.value) wanted.set("parameters", JSON.stringify(given_parameters()));
    el("a", { href: "/download/query?" + wanted, download: "result." + format }).click();
  }

  async function tables() {
    try {
      const reply = await call(ADMIN + "ListTables", { database: database.value });
      list.replaceChildren(...(reply.tables || []).map((table) => el("button", { title: table.kind, onclick: async () => {
        sql.value = `select * from ${/^[a-z_]\w*$/i.test(table.name) ? table.name : '"' + table.name.replaceAll('"', '""') + '"'} limit 100`;
        const shape = await call(ADMIN + "DescribeTable", { database: database.value, table: table.name });
        said.textContent = clean((shape.columns || []).map((column) => `${column.name} ${column.type}`).join(", "));
      } }, oneLine(table.name))));
    } catch (error) { list.replaceChildren(el("p", { className: "note" }, clean(error.message))); }
  }

  call(ADMIN + "GetStatus").then((status) => {
    database.replaceChildren(el("option", { value: "" }, "store"), ...(status.databases || []).map((name) => el("option", { value: name }, clean(name))));
    database.value = given.get("db") || "";
    return tables();
  }).catch((error) => state(clean(error.message), true));
  line("query", literal(sql.value));
  return () => stop?.abort();
}
