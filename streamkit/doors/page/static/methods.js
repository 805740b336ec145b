import { call, literal, stream } from "./api.js";
import { Lines, clean, el, oneLine } from "./dom.js";

const TYPED = "application/json";

export default function methods(panel, { rest, state, line, go }) {
  const list = el("aside", { ariaLabel: "Methods" }), work = el("div");
  const search = el("input", { type: "search", placeholder: "method", ariaLabel: "Filter", oninput: draw });
  search.dataset.search = "";
  panel.append(el("div", { className: "bar" }, search), el("div", { className: "split" }, list, work));
  let services = [], stop = null;

  function draw() {
    list.replaceChildren(...services.flatMap((service) => {
      const wanted = service.methods.filter((method) => `${service.name}/${method.name}`.toLowerCase().includes(search.value.toLowerCase()));
      return wanted.length ? [el("p", { className: "note", title: clean(service.comment) }, service.name), ...wanted.map((method) => el("button", { title: clean(method.comment), onclick: () => choose(service, method) }, method.name))] : [];
    }));
  }

  function choose(service, method) {
    stop?.abort();
    const path = `${service.name}/${method.name}`;
    go("#methods/" + encodeURIComponent(path));
    const body = el("textarea", { rows: 9, spellcheck: false, ariaLabel: "Request", placeholder: JSON.stringify(method.example, null, 2), oninput: () => { fill(); lines_of(); } });
    const inputs = method.fields.map((field) => field.values || (field.type === "bool" && !field.many)
      ? el("select", { ariaLabel: field.name, onchange: () => put(field) }, ...["", ...(field.values || ["true", "false"])].map((one) => el("option", {}, one)))
      : el("input", { ariaLabel: field.name, placeholder: shown(method.example[field.name] ?? ""), onchange: () => put(field) }));
    const form = el("div", { className: "form" }, ...method.fields.map((field, i) => el("label", { title: clean(field.comment) },
      el("span", {}, field.name, " ", el("small", { className: "note" }, (field.many ? "repeated " : "") + field.type.split(".").pop())), inputs[i])));
    const send = el("button", { className: "main", onclick: run }, "Send"), end = el("button", { disabled: true, onclick: () => stop?.abort() }, "Stop");
    const hold = el("button", { hidden: !method.replies, onclick: () => answers.hold(answers.follow) }, "Pause");
    const answers = new Lines((text, row) => { row.textContent = oneLine(text); row.title = clean(text); row.onclick = () => { one.textContent = clean(pretty(text)); }; }, { onHold: (missed) => { hold.textContent = answers.follow ? "Pause" : `${missed} new, go on`; } });
    const said = el("span", { className: "note", role: "status" }), one = el("pre"), elsewhere = el("pre", { className: "note" });
    work.replaceChildren(el("h3", {}, path), el("pre", { className: "note" }, clean(method.comment)),
      el("div", { className: "note" }, `${method.requests ? "stream " : ""}${method.input} \u2192 ${method.replies ? "stream " : ""}${method.output}`),
      form, body, el("div", { className: "bar" }, send, end, hold, said), answers.node, one, elsewhere);
    answers.node.hidden = !method.replies;
    if (method.requests) { send.disabled = true; said.textContent = "a stream of requests needs gRPC over HTTP/2"; }
    lines_of();

    // The form writes the request, and shows what is written there by hand.
    function put(field) {
      try {
        const message = JSON.parse(body.value || "{}"), text = inputs[method.fields.indexOf(field)].value.trim();
        for (const { name, oneof } of method.fields) if (name === field.name || (oneof && oneof === field.oneof)) delete message[name];
        if (text) message[field.name] = read(field, text);
        body.value = JSON.stringify(message, null, 2);
        said.textContent = "";
      } catch (error) { said.className = "error"; said.textContent = clean(`${field.name}: ${error.message}`); return; }
      fill(); lines_of();
    }

    function fill() {
      let message;
      try { message = JSON.parse(body.value || "{}"); } catch { return; }
      method.fields.forEach((field, i) => { inputs[i].value = shown(message[field.name] ?? ""); });
    }

    function lines_of() {
      const compact = (() => { try { return JSON.stringify(JSON.parse(body.value || "{}")); } catch { return body.value; } })();
      const plain = location.protocol === "https:" ? "" : "-plaintext ";
      line("call", path, "-d", literal(compact));
      elsewhere.textContent = `grpcurl ${plain}-d ${literal(compact)} ${location.host} ${path}` + (method.replies ? "" : `\ncurl -d ${literal(compact)} -H 'content-type: ${TYPED}' ${location.origin}/${path}`);
    }

    async function run() {
      stop?.abort();
      const mine = stop = new AbortController();
      let message;
      try { message = JSON.parse(body.value || "{}"); } catch (error) { said.className = "error"; said.textContent = clean(error.message); return; }
      said.className = "note"; said.textContent = "\u2026"; one.textContent = ""; answers.set([]); answers.hold(false);
      send.disabled = true; end.disabled = false;
      const begun = performance.now();
      let count = 0;
      try {
        if (method.replies) {
          for await (const reply of stream(path, message, mine.signal)) { count++; answers.add([JSON.stringify(reply)]); said.textContent = `${count}`; }
        } else one.textContent = clean(JSON.stringify(await call(path, message, mine.signal), null, 2));
        said.textContent = `ok${method.replies ? `, ${count}` : ""} in ${((performance.now() - begun) / 1000).toFixed(3)} s`;
      } catch (error) {
        said.className = error.name === "AbortError" ? "note" : "error";
        said.textContent = error.name === "AbortError" ? `stopped after ${count}` : clean(`${error.code}: ${error.message}`);
      } finally { if (stop === mine) { send.disabled = false; end.disabled = true; } }
    }
  }

  const shown = (value) => typeof value === "string" ? value : Array.isArray(value) && value.every((one) => typeof one !== "object") ? value.join(", ") : JSON.stringify(value);
  function read(field, text) {
    const one = (part) => /^[[{"]/.test(part) ? JSON.parse(part) : /^(s?fixed32|[su]?int32|float|double)$/.test(field.type) && isFinite(part) ? Number(part) : field.type === "bool" ? part === "true" : part;
    return field.many && text[0] !== "[" && text[0] !== "{" ? text.split(",").map((part) => one(part.trim())) : one(text);
  }
  const pretty = (text) => JSON.stringify(JSON.parse(text), null, 2);
  fetch("/methods.json").then(async (response) => {
    if (!response.ok) throw new Error(await response.text());
    // One's own services before those that every server has.
    const given = ({ name }) => /^(grpc|streamservice)\./.test(name);
    services = (await response.json()).sort((a, b) => given(a) - given(b));
    draw();
    const [name, method] = decodeURIComponent(rest || "").split("/");
    const service = services.find((one) => one.name === name), found = service?.methods.find((one) => one.name === method);
    if (found) choose(service, found);
    else work.append(el("p", { className: "note" }, "Every method of this server, its own services among them."));
  }).catch((error) => state(clean(error.message), true));
  line("describe");
  return () => stop?.abort();
}
