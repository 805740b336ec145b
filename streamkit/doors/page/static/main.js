import { ADMIN, call, login, logout, session } from "./api.js";
import { clean, el } from "./dom.js";
import jobs from "./jobs.js";
import logs from "./logs.js";
import methods from "./methods.js";
import people from "./people.js";
import query from "./query.js";
import updates from "./updates.js";

const panels = { jobs, logs, updates, query, methods, people };
const names = { jobs: "Jobs", logs: "Logs", updates: "Updates", query: "Query", methods: "Methods", people: "Connected" };
const find = (id) => document.getElementById(id);
let leave = () => {};

export const address = location.host;

function state(text, bad = false) {
  find("state").textContent = text;
  find("state").className = bad ? "error" : "";
}

// Each panel says which command does the same.
function line(...words) {
  find("line").textContent = ["streamkit", ...words].join(" ") + (address === "localhost:50051" ? "" : ` -s ${address}`);
}

function where() {
  const [name, rest = ""] = location.hash.slice(1).split(/[/?](.*)/s);
  return [panels[name] ? name : "jobs", rest];
}

function show() {
  const [name, rest] = where();
  leave();
  for (const tab of find("tabs").children) tab.setAttribute("aria-selected", String(tab.dataset.name === name));
  const panel = find("panel");
  panel.replaceChildren();
  document.title = `${names[name]} \u2013 streamkit`;
  leave = panels[name](panel, { rest, state, line, go: (hash) => history.replaceState(null, "", hash) }) || (() => {});
}

function keys(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
  if (event.key === "Escape" && typing) event.target.blur();
  if (typing) return;
  const tab = find("tabs").children[Number(event.key) - 1];
  if (tab) tab.click();
  const box = event.key === "/" && document.querySelector("[data-search]");
  if (box) { event.preventDefault(); box.focus(); box.select(); }
  const hold = event.key === " " && document.querySelector("[data-hold]");
  if (hold && event.target.tagName !== "BUTTON") { event.preventDefault(); hold.click(); }
}

function askToken(problem = "") {
  leave();
  leave = () => {};
  const box = el("input", { type: "password", placeholder: "sk_\u2026", autocomplete: "current-password", ariaLabel: "Token" });
  const said = el("div", { className: "error", textContent: problem });
  const form = el("form", { className: "login", onsubmit: async (event) => {
    event.preventDefault();
    try { await login(box.value.trim()); box.value = ""; await begin(); } catch (error) { said.textContent = clean(error.message); }
  } }, el("label", {}, "A token of this server (streamkit token create)"), box, el("button", { className: "main", type: "submit" }, "Log in"), said);
  find("tabs").replaceChildren();
  find("panel").replaceChildren(form);
  box.focus();
}

let again;
function later() { clearTimeout(again); again = setTimeout(() => begin().catch(later), 3000); }

async function begin() {
  const known = await session();
  if (!known.loggedIn) {
    if (known.needsToken) return askToken();
    leave();
    leave = () => {};
    later();  // it may be opened in another tab
    find("panel").replaceChildren(el("p", { className: "login" }, "Open the address that the server printed when it started: it carries a code that is good once. Another start prints another one."));
    return;
  }
  try {
    const status = await call(ADMIN + "GetStatus");
    state(`streamkit ${clean(status.version)}`);
  } catch (error) {
    if (error.status === 401) { await logout(); return askToken(known.needsToken ? "that token is not valid (any more)" : ""); }
    state(clean(error.message), true);
  }
  find("leave").hidden = false;
  find("tabs").replaceChildren(...Object.entries(names).map(([name, text], i) => el("button", {
    role: "tab", title: `key ${i + 1}`, onclick: () => { location.hash = name; },
  }, text)));
  [...find("tabs").children].forEach((tab, i) => { tab.dataset.name = Object.keys(names)[i]; });
  show();
}

addEventListener("hashchange", show);
addEventListener("keydown", keys);
addEventListener("logged-out", async () => {
  try { if (!(await session()).loggedIn) await begin(); } catch { /* it is away: whoever waits asks again */ }
});
find("leave").addEventListener("click", async () => { await logout(); location.hash = ""; location.reload(); });
find("copy").addEventListener("click", () => navigator.clipboard?.writeText(find("line").textContent));
begin().catch((error) => { state(clean(error.message), true); later(); });
