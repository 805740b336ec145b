// Calls of the server: Connect for one answer and for streams of a call, events for the journal.

export class ApiError extends Error {
  constructor(code, message, status) { super(message || code); this.code = code; this.status = status; }
}

async function failure(response) {
  let told = {};
  const text = await response.text();
  try { told = JSON.parse(text); } catch { told = { message: text.trim() }; }
  if (response.status === 401) dispatchEvent(new Event("logged-out"));
  return new ApiError(told.code || "unknown", told.message || response.statusText, response.status);
}

export async function call(method, message = {}, signal) {
  const response = await fetch("/" + method, {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(message), signal,
  });
  if (!response.ok) throw await failure(response);
  return response.json();
}

// The replies of a server stream, one by one.
export async function* stream(method, message, signal) {
  const body = new TextEncoder().encode(JSON.stringify(message));
  const framed = new Uint8Array(5 + body.length);
  new DataView(framed.buffer).setUint32(1, body.length);
  framed.set(body, 5);
  const response = await fetch("/" + method, {
    method: "POST", headers: { "content-type": "application/connect+json" }, body: framed, signal,
  });
  if (!response.ok) throw await failure(response);
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let parts = [], size = 0;
  const join = () => {
    if (parts.length > 1) {
      const all = new Uint8Array(size);
      let at = 0;
      for (const part of parts) { all.set(part, at); at += part.length; }
      parts = [all];
    }
    return parts[0];
  };
  let need = 5;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new ApiError("unavailable", "the stream broke off");
    parts.push(value); size += value.length;
    while (size >= need) {
      const all = join();
      const length = new DataView(all.buffer, all.byteOffset).getUint32(1);
      need = 5 + length;
      if (size < need) break;
      const text = JSON.parse(decoder.decode(all.subarray(5, need)));
      const flag = all[0];
      parts = [all.subarray(need)]; size -= need; need = 5;
      if (flag & 2) {
        if (text.error) throw new ApiError(text.error.code, text.error.message);
        return;
      }
      yield text;
    }
  }
}

// Server-sent events; `handlers` by event name. The browser resumes by itself after the last id; a
// stream that was open once and is then refused (by a server that starts, say) is asked for again.
export function events(path, handlers) {
  let source, timer, last = "", opened = false;
  const heard = (handle) => (event) => {
    last = event.lastEventId || last;
    handle(event.data ? JSON.parse(event.data) : {}, last);
  };
  function open() {
    source = new EventSource(last ? `${path}${path.includes("?") ? "&" : "?"}after=${encodeURIComponent(last)}` : path);
    source.onopen = () => { opened = true; handlers.open?.(); };
    source.onerror = () => {
      const closed = source.readyState === EventSource.CLOSED;
      handlers.broken?.(closed && !opened);
      if (!closed) return;
      dispatchEvent(new Event("logged-out"));  // or refused for another reason: the session tells
      if (opened) timer = setTimeout(open, 2000);
    };
    for (const [name, handle] of Object.entries(handlers)) {
      if (name === "record") source.onmessage = heard(handle);
      else if (name !== "open" && name !== "broken") source.addEventListener(name, heard(handle));
    }
  }
  open();
  return { close() { clearTimeout(timer); source.close(); } };
}

export const session = async () => (await fetch("/session")).json();
export async function login(token) {
  const response = await fetch("/session", {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ token }),
  });
  if (!response.ok) throw new ApiError("unauthenticated", "this is no token", response.status);
}
export const logout = () => fetch("/session", { method: "DELETE", headers: { "content-type": "application/json" } });

export const ADMIN = "streamservice.AdminService/";
export const PRODUCER = "streamservice.ProducerService/";
export const STREAMS = "streamservice.StreamService/";

// Rows of a query as arrays; a parameter is {name?, text|integer|real|null}.
export async function* rows(query, { database = "", parameters = [], batch = 500, signal } = {}) {
  const request = { query, database, batchSize: batch, columns: true, parameters };
  let columns = null;
  for await (const result of stream(STREAMS + "StreamQueryResults", request, signal)) {
    if (result.columns) columns = result.columns;
    const names = columns ? columns.map((column) => column.name) : [];
    yield {
      columns: columns || [],
      rows: (result.rows || []).map((row) => names.map((name) => (row.columns || {})[name] ?? null)),
    };
  }
}

export const literal = (text) => "'" + String(text).replaceAll("'", "'\\''") + "'";
