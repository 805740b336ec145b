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

// Server-sent events; `handlers` by event name. It goes on after the last id whenever the stream
// breaks off, also when a server that starts refuses it for a while; a first refusal is final. Read
// by the piece: EventSource makes a task of every record, and thousands a second of them leave the
// browser no time to draw. Here nothing takes longer than a part of a frame.
export function events(path, handlers) {
  const leave = new AbortController();
  let last = "", opened = false, timer, began = 0;
  function hear(block) {
    let name = "record", data = "";
    for (const text of block.split("\n")) {
      if (text.startsWith("id: ")) last = text.slice(4);
      else if (text.startsWith("event: ")) name = text.slice(7);
      else if (text.startsWith("data: ")) data = text.slice(6);
    }
    if (data) handlers[name]?.(JSON.parse(data), last);
  }
  async function read() {
    const headers = { accept: "text/event-stream", ...(last && { "last-event-id": last }) };
    const response = await fetch(path, { headers, cache: "no-store", signal: leave.signal });
    if (response.status === 204) return false;
    if (!response.ok) {
      dispatchEvent(new Event("logged-out"));  // or refused for another reason: the session tells
      handlers.broken?.(!opened);
      return opened;
    }
    opened = true;
    handlers.open?.();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        if (performance.now() - began > 8 && !document.hidden) {
          await new Promise((go) => setTimeout(go));
          began = performance.now();
        }
        if (leave.signal.aborted) return false;
        hear(block);
      }
    }
    throw new Error("broken off");
  }
  async function open() {
    let again = true;
    try { again = await read(); } catch { if (!leave.signal.aborted) handlers.broken?.(false); }
    if (again && !leave.signal.aborted) timer = setTimeout(open, opened ? 1000 : 2000);
  }
  open();
  return { close() { clearTimeout(timer); leave.abort(); } };
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
