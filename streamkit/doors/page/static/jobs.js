import { PRODUCER, call, events, literal, rows } from "./api.js";
import { Lines, clean, el, lasting, number } from "./dom.js";
import { drawEntry } from "./logs.js";

const LIVE = ["pending", "running"];

export default function jobs(panel, { rest, state, line, go }) {
  const known = new Map();
  const shown = new Map();
  let chosen = decodeURIComponent(rest || ""), closeDetail = () => {}, dirty = false, filter = "";
  const list = el("div", { className: "jobs", role: "list" });
  const detail = el("section", { ariaLabel: "Job" });
  const status = el("select", { ariaLabel: "Status", onchange: draw }, ...["all", "live", "completed", "failed", "cancelled", "lost"].map((name) => el("option", {}, name)));
  const search = el("input", { type: "search", placeholder: "job", ariaLabel: "Filter by name", oninput: () => { filter = search.value; draw(); } });
  search.dataset.search = "";
  panel.append(el("div", { className: "bar" }, search, status), list, detail);
  line("jobs");

  function take(job) {
    const before = known.get(job.jobId);
    if (before && Number(before.sequence) >= Number(job.sequence)) return;
    job.history = before?.history || [];
    job.history.push([Date.now(), Number(job.completed || job.percentage || 0)]);
    if (job.history.length > 30) job.history.shift();
    known.set(job.jobId, job);
    if (!dirty) { dirty = true; setTimeout(() => { dirty = false; draw(); }, 100); }
    if (job.jobId === chosen) drawDetail();
  }

  // Units a second over the last reports, and what is left at that rate.
  function pace(job) {
    const [first, last] = [job.history[0], job.history.at(-1)];
    const seconds = (last[0] - first[0]) / 1000;
    if (!LIVE.includes(job.status) || seconds < 0.5) return [];
    const rate = (last[1] - first[1]) / seconds;
    const total = Number(job.total || 100);
    const left = rate > 0 ? lasting((total - last[1]) / rate) : "";
    return [job.total ? `${rate.toFixed(rate < 10 ? 1 : 0)}/s` : "", left ? `${left} left` : ""];
  }

  function draw() {
    const wanted = [...known.values()].filter((job) =>
      (status.value === "all" || job.status === status.value || (status.value === "live" && LIVE.includes(job.status))) && job.jobId.includes(filter));
    wanted.sort((a, b) => LIVE.includes(b.status) - LIVE.includes(a.status) || Number(b.sequence) - Number(a.sequence));
    const keep = new Set();
    wanted.slice(0, 500).forEach((job, i) => {
      keep.add(job.jobId);
      let node = shown.get(job.jobId);
      if (!node) {
        node = el("button", { className: "job", onclick: () => choose(job.jobId) }, el("b"), el("progress", { max: 100 }), el("span"), el("span"), el("small"));
        shown.set(job.jobId, node);
      }
      const [name, bar, percent, tag, step] = node.children;
      name.textContent = clean(job.jobId);
      bar.value = job.percentage || 0;
      bar.ariaLabel = clean(job.jobId);
      percent.textContent = `${job.percentage || 0}%`;
      tag.textContent = job.stalled ? "stalled" : job.status;
      tag.className = "tag " + (job.stalled ? "stalled" : job.status);
      const units = job.total ? `${number(job.completed || 0)} of ${number(job.total)}` : "";
      step.textContent = clean([units, ...pace(job), job.error || job.currentStep].filter(Boolean).join(" \u00b7 "));
      node.setAttribute("aria-current", String(job.jobId === chosen));
      if (list.children[i] !== node) list.insertBefore(node, list.children[i] || null);
    });
    for (const [id, node] of shown) if (!keep.has(id)) { node.remove(); shown.delete(id); }
    if (!known.size) list.replaceChildren(el("p", { className: "note" }, "No jobs yet. In a terminal: streamkit run -- make test"));
    else list.querySelector("p")?.remove();
  }

  function choose(id) {
    chosen = chosen === id ? "" : id;
    go("#jobs" + (chosen ? "/" + encodeURIComponent(chosen) : ""));
    closeDetail(); detail.replaceChildren(); draw();
    line(...(chosen ? ["watch-job", literal(chosen)] : ["jobs"]));
    if (chosen) openDetail();
  }

  let drawDetail = () => {};
  function openDetail() {
    const id = chosen;
    const head = el("div", { className: "bar" }), error = el("pre", { className: "error" }), past = el("div", { className: "note" });
    const lines = new Lines(drawEntry, { most: 2000 });
    lines.node.style.height = "16rem";
    detail.replaceChildren(head, error, past, lines.node);
    let source = null, service = null;
    drawDetail = () => {
      const job = known.get(id);
      if (!job) return;
      const end = LIVE.includes(job.status) ? Date.now() : new Date(job.updatedAt);
      const cancel = el("button", { disabled: !LIVE.includes(job.status) || job.cancelRequested, onclick: async () => {
        try { take(await call(PRODUCER + "CancelJob", { jobId: id, reason: "from the page" })); } catch (problem) { state(clean(problem.message), true); }
      } }, job.cancelRequested ? "cancelling\u2026" : "Cancel");
      head.replaceChildren(el("b", {}, clean(id)), el("span", { className: "tag " + job.status }, job.status), el("span", { className: "note" },
        clean(`${lasting((end - new Date(job.createdAt)) / 1000)}${job.exitCode !== undefined ? `, exit code ${job.exitCode}` : ""}  ${job.currentStep || ""}`)), el("span", { className: "grow" }), cancel);
      error.textContent = clean(job.error || "");
      if (job.service && job.service !== service) {
        service = job.service;
        source?.close();
        source = events(`/v1/logs?service=${encodeURIComponent(service)}&last=200`, { record: (entry) => lines.add([entry]) });
      }
    };
    drawDetail();
    history(id, past).catch(() => {});
    closeDetail = () => { source?.close(); drawDetail = () => {}; closeDetail = () => {}; };
  }

  // How long earlier runs of the same job took.
  async function history(id, node) {
    const sql = "select time, status, (julianday(time) - julianday(created_at)) * 86400 as seconds from job_events where job_id = ? and status not in ('pending', 'running') order by sequence desc limit 5";
    for await (const { rows: found } of rows(sql, { parameters: [{ text: id }] })) {
      if (found.length > 1) node.textContent = "earlier: " + found.slice(1).map(([, how, seconds]) => `${how} after ${lasting(Number(seconds))}`).join(", ");
    }
  }

  call(PRODUCER + "ListJobs", { limit: 200 }).then((reply) => { (reply.jobs || []).reverse().forEach(take); draw(); if (chosen) openDetail(); }).catch((error) => state(clean(error.message), true));
  const source = events("/v1/jobs", {
    record: take, open: () => state("live"),
    broken: (final) => state(final ? "the server refused this stream" : "connection lost, coming back\u2026", true),
  });
  return () => { source.close(); closeDetail(); };
}
