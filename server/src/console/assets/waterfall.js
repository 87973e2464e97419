// One join over time. From the spans of both sides, where this server has some: each
// below what it is a part of. Else from the record: the two calls that it is made of,
// its phases, and in them who was at work. What was waited for is the record's word.

import { el, took } from "./dom.js";

const GOES_ON = ["Queued", "Running", "Waiting"];

/** Draws it, and says what it is drawn from. */
export function waterfall(told, seen, about) {
  const drawn = seen && seen.spans.length > 0 ? fromSpans(told, seen) : fromRecord(told);
  return [table(drawn), el("p", { class: "hint", id: "drawn-from" }, sources(told, seen, drawn, about))];
}

/** Rows have: name, side, kind, depth, from and to in milliseconds since 1970, open, code. */
function table({ rows, began, end }) {
  const scale = (millis) => `${(100 * millis) / (end - began)}%`;
  const bar = (row) => {
    const drawn = el("div", { class: "barred", "data-side": row.side, "data-kind": row.kind });
    drawn.style.left = scale(row.from - began);
    drawn.style.width = scale(Math.max(0, row.to - row.from));
    return el("td", { class: "track" }, drawn);
  };
  const name = (row) => {
    const cell = el("td", { class: ["call", "answer"].includes(row.kind) ? "mono" : "" },
      row.depth > 0 && el("span", { class: "unseen" }, `level ${row.depth + 1}: `), row.name,
      row.code && el("span", { class: "ends", "data-outcome": row.outcome }, row.code));
    cell.style.setProperty("--depth", String(Math.min(row.depth, 6)));
    return cell;
  };
  return el("div", { class: "scrolls", tabIndex: 0, role: "region", "aria-label": "Waterfall" },
    el("table", { class: "waterfall" },
      el("thead", {}, el("tr", {}, ["What", "By", "Began", "Took"].map((title) => el("th", { scope: "col", class: title === "Began" ? "wide" : "" }, title)),
        el("th", { scope: "col" }, el("span", { class: "unseen" }, "As a bar")))),
      el("tbody", {}, rows.map((row) => el("tr", { "data-side": row.side, "data-depth": String(row.depth) }, name(row),
        el("td", {}, el("span", { class: "side", "data-side": row.side }, row.side)),
        el("td", { class: "num wide" }, `+${took(row.from - began)}`), el("td", { class: "num" }, row.open ? "goes on" : took(row.to - row.from)), bar(row))))));
}

function sources({ join }, seen, drawn, about) {
  const trace = seen?.traceId ?? join.traceId;
  const whole = trace && about.traceURL
    && el("a", { href: about.traceURL.replaceAll("{trace}", trace), target: "_blank", rel: "noopener noreferrer", "data-keep": "trace-whole" }, "The whole trace");
  const words = drawn.words ?? ["This is what the record says: this server has no spans of the join. Another one led it, or it was too long ago. "];
  return whole ? [...words, whole, " is in the trace store."] : words;
}

function fromSpans({ join, events }, { spans, leftOut, agentAheadMicros }) {
  const depths = new Map();
  const rows = spans.map((span) => {
    const depth = depths.has(span.parent) ? depths.get(span.parent) + 1 : 0;
    depths.set(span.id, depth);
    const method = span.name.split(".").pop();
    const name = { call: `calls ${method}`, answer: `answers ${method}` }[span.kind] ?? span.name;
    const from = span.beganMicros / 1000;
    const open = span.endedMicros === null;
    return { name, depth, side: span.side, kind: span.kind, from, to: open ? null : span.endedMicros / 1000, open, code: span.code, outcome: span.outcome };
  });
  const began = Math.min(...rows.map((row) => row.from));
  const settled = !GOES_ON.includes(join.state);
  const ends = rows.filter((row) => !row.open).map((row) => row.to);
  const end = Math.max(began + 1, ...ends, settled && !rows.some((row) => row.open) ? began : Date.now());
  for (const row of rows) row.to ??= end;
  const waits = steps(ofTheJoin(events), began, end, settled).filter((row) => row.kind === "wait");
  return { rows: [...rows, ...waits], began, end, words: missing(spans, leftOut, agentAheadMicros) };
}

/** What of a join this server cannot know, and how its rows were changed. */
function missing(spans, leftOut, aheadMicros) {
  const words = ["The spans of both sides, as this server heard of them. "];
  const answered = new Set(spans.filter((span) => span.kind === "answer").map((span) => span.parent));
  const elsewhere = spans.filter((span) => span.kind === "call" && !answered.has(span.id)).length;
  if (!spans.some((span) => span.side === "agent")) words.push("The agent's are not among them: it sends them once it has a certificate, to the server that it then talks to. ");
  if (elsewhere > 0) words.push(`${elsewhere === 1 ? "One call was" : `${elsewhere} calls were`} answered by another server, which knows what it did. `);
  if (leftOut > 0) words.push(`${leftOut} more were left out. `);
  if (Math.abs(aheadMicros) >= 1000) words.push(`The machine's clock is ${took(Math.abs(aheadMicros) / 1000)} ${aheadMicros > 0 ? "ahead" : "behind"}; its rows are moved by that. `);
  return words;
}

function fromRecord({ join, events }) {
  const began = Date.parse(join.started);
  const settled = !GOES_ON.includes(join.state);
  const mine = ofTheJoin(events);
  const last = mine.length ? Date.parse(mine[mine.length - 1].at) : began;
  const end = Math.max(settled ? last : Date.now(), began + 1);
  return { rows: [...calls(mine, began, end), ...steps(mine, began, end, settled)], began, end };
}

/** What is told of a node after its join is not a part of it. */
const AFTER = new Set(["banned", "unbanned", "left", "forgotten", "notReady"]);
const ofTheJoin = (events) => events.filter((event) => !AFTER.has(event.kind) && !(event.kind === "authorized" && event.values.renewal === "true"));

/** Connection 1 carries Enroll, connection 2 the rest. */
function calls(events, began, end) {
  const upgrade = events.find((event) => event.kind === "issued") ?? events.find((event) => event.kind === "authorized");
  const rows = [{ name: "JoinService/Enroll", kind: "call", side: "both", depth: 0, from: began, to: upgrade ? Date.parse(upgrade.at) : end }];
  if (upgrade) rows.push({ name: "JoinService/Join", kind: "call", side: "both", depth: 0, from: Date.parse(upgrade.at), to: end });
  return rows;
}

/** From each event to the next one: what led there, and by whom. */
function steps(events, began, end, settled) {
  const rows = [];
  let from = began;
  let waits = null;
  for (const event of events) {
    const at = Date.parse(event.at);
    if (event.kind === "waiting") {
      waits ??= { name: `waits: ${event.diagnosis?.code ?? "?"}`, kind: "wait", side: "server", depth: 1, from: at };
      continue;
    }
    if (waits) { rows.push({ ...waits, to: at }); from = at; waits = null; }
    const [name, side] = STEPS[event.kind] ?? [event.kind, "server"];
    rows.push({ name, kind: "step", side, depth: 1, from, to: at });
    from = at;
  }
  if (waits) rows.push({ ...waits, to: end, open: !settled });
  else if (!settled) rows.push({ name: "under way", kind: "step", side: "both", depth: 1, from, to: end, open: true });
  return rows;
}

const STEPS = {
  redeemed: ["authentication: the token's proof", "server"],
  approved: ["authorization: a person's word", "operator"],
  denied: ["authorization: a person's word", "operator"],
  authorized: ["authorization: policy, name, record", "server"],
  issued: ["authorization: the certificate", "signer"],
  configured: ["configuration: files written", "agent"],
  registered: ["registration: facts told", "agent"],
  ready: ["registration: checks until Ready", "agent"],
  refused: ["refused", "server"],
  gaveUp: ["gave up", "agent"],
};
