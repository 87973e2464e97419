// One join over time, as far as the record knows it: the two calls that it is made
// of, its phases, and in them who was at work, and what was waited for.

import { el, took } from "./dom.js";

/** Bars of a join that is told by its events. */
export function waterfall({ join, events }) {
  const began = Date.parse(join.started);
  const settled = !["Running", "Waiting"].includes(join.state);
  const mine = events.filter((event) => !AFTER.has(event.kind) && !(event.kind === "authorized" && event.values.renewal === "true"));
  const last = mine.length ? Date.parse(mine[mine.length - 1].at) : began;
  const end = Math.max(settled ? last : Date.now(), began + 1);
  const rows = [...calls(mine, began, end), ...steps(mine, began, end, settled)];
  const scale = (at) => `${(100 * (at - began)) / (end - began)}%`;
  const bar = (row) => {
    const drawn = el("div", { class: "barred", "data-side": row.side, "data-kind": row.kind });
    drawn.style.left = scale(row.from);
    drawn.style.width = scale(began + Math.max(0, row.to - row.from));
    return el("td", { class: "track" }, drawn);
  };
  return el("div", { class: "scrolls", tabIndex: 0, role: "region", "aria-label": "Waterfall" },
    el("table", { class: "waterfall" },
      el("thead", {}, el("tr", {}, ["What", "By", "Began", "Took"].map((name) => el("th", { scope: "col", class: ["By", "Began"].includes(name) ? "wide" : "" }, name)),
        el("th", { scope: "col" }, el("span", { class: "unseen" }, "As a bar")))),
      el("tbody", {}, rows.map((row) => el("tr", {},
        el("td", { class: row.kind === "call" ? "mono" : "inner" }, row.name), el("td", { class: "soft wide" }, row.side),
        el("td", { class: "num wide" }, `+${took(row.from - began)}`), el("td", { class: "num" }, row.open ? "goes on" : took(row.to - row.from)), bar(row))))));
}

/** What is told of a node after its join is not a part of it. */
const AFTER = new Set(["banned", "unbanned", "left", "forgotten", "notReady"]);

/** Connection 1 carries Enroll, connection 2 the rest. */
function calls(events, began, end) {
  const upgrade = events.find((event) => event.kind === "issued") ?? events.find((event) => event.kind === "authorized");
  const rows = [{ name: "JoinService/Enroll", kind: "call", side: "both", from: began, to: upgrade ? Date.parse(upgrade.at) : end }];
  if (upgrade) rows.push({ name: "JoinService/Join", kind: "call", side: "both", from: Date.parse(upgrade.at), to: end });
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
      waits ??= { name: `waits: ${event.diagnosis?.code ?? "?"}`, kind: "wait", side: "server", from: at };
      continue;
    }
    if (waits) { rows.push({ ...waits, to: at }); from = at; waits = null; }
    const [name, side] = STEPS[event.kind] ?? [event.kind, "server"];
    if (name) rows.push({ name, kind: "step", side, from, to: at });
    from = at;
  }
  if (waits) rows.push({ ...waits, to: end, open: !settled });
  else if (!settled) rows.push({ name: "under way", kind: "step", side: "both", from, to: end, open: true });
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
