// The way to the server. The session lives in this tab only; each request names it
// in a header, so that no other page can send one in its stead.

const KEPT = "berth-session";
let onStranger = () => {};

/** Calls back when the session has ended. */
export function whenStranger(callback) { onStranger = callback; }

/** What the server did not do: its words, and what is wrong with each field. */
export class Refused extends Error {
  constructor(message, status, fields = []) { super(message); this.status = status; this.fields = fields; }
}

function headers(more) {
  const all = { "Berth-Console": "1", ...more };
  const session = sessionStorage.getItem(KEPT);
  if (session) all.Authorization = `Bearer ${session}`;
  return all;
}

async function refused(answer) {
  const { error } = await answer.json().catch(() => ({}));
  if (answer.status === 401 && sessionStorage.getItem(KEPT)) sessionStorage.removeItem(KEPT);
  return new Refused(error?.message ?? `the server answers ${answer.status}`, answer.status, error?.fields);
}

/** Asks; the answer's JSON. */
export async function ask(path, { method = "GET", body } = {}) {
  const options = { method, headers: headers(body === undefined ? {} : { "Content-Type": "application/json" }), cache: "no-store" };
  if (body !== undefined) options.body = JSON.stringify(body);
  let answer;
  try {
    answer = await fetch(`/api${path}`, options);
  } catch {
    throw new Refused("the server does not answer; it may be restarting", 0);
  }
  if (answer.ok) return answer.json();
  const error = await refused(answer);
  if (error.status === 401) onStranger();
  throw error;
}

/** Signs in with an operator's token. */
export async function enter(token) {
  const answer = await fetch("/api/session/new", {
    method: "POST", headers: { "Berth-Console": "1", "Content-Type": "application/json" }, body: JSON.stringify({ token }),
  });
  if (!answer.ok) throw await refused(answer);
  sessionStorage.setItem(KEPT, (await answer.json()).session);
}

/** Signs out. */
export async function leave() {
  await ask("/session", { method: "DELETE" }).catch(() => {});
  sessionStorage.removeItem(KEPT);
}

/** Reads server-sent events until the stream ends; `last` is the place to go on after. */
export async function events(path, last, signal, heard) {
  const more = last ? { Accept: "text/event-stream", "Last-Event-ID": last } : { Accept: "text/event-stream" };
  const answer = await fetch(`/api${path}`, { headers: headers(more), signal, cache: "no-store" });
  if (!answer.ok) throw await refused(answer);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  heard({ kind: "open" });
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    let end;
    while ((end = rest.indexOf("\n\n")) >= 0) {
      const event = { kind: "message", data: "" };
      for (const line of rest.slice(0, end).split("\n")) {
        if (line.startsWith("event: ")) event.kind = line.slice(7);
        else if (line.startsWith("id: ")) event.id = line.slice(4);
        else if (line.startsWith("data: ")) event.data += line.slice(6);
      }
      rest = rest.slice(end + 2);
      // A comment says that the line stands.
      heard(event.data ? { ...event, data: JSON.parse(event.data) } : { kind: "still" });
    }
  }
}
