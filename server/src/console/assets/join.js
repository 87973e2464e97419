// One join: where it stands, why, how it is mended, how it came there.

import { confirm, copier, el, fill, moment, say, state, took, tree, wrong } from "./dom.js";
import { PHASES } from "./joins.js";
import { ask } from "./server.js";
import { whenChanged } from "./store.js";
import { waterfall } from "./waterfall.js";

/** Shows it; returns how to leave. */
export function show(main, id, about) {
  main.className = "reads";
  const place = el("div", {});
  main.replaceChildren(place);
  fill(place, el("p", { class: "empty" }, "Asking the server…"));
  let asking = false;
  let again = false;
  let gone = false;
  let shown = null;
  const path = `/joins/${encodeURIComponent(id)}`;
  async function load() {
    if (asking) { again = true; return; }
    asking = true;
    try {
      // An older server, or one that has none, is no reason to show nothing.
      const [told, seen] = await Promise.all([ask(path), ask(`${path}/spans`).catch(() => null)]);
      const machine = told.join.reached.some(({ phase }) => phase === "authorization") ? await ask(`/nodes/${encodeURIComponent(told.join.node)}`).catch(() => null) : null;
      shown = { told, seen, machine };
      draw();
    } catch (error) {
      shown = null;
      if (!gone) fill(place, el("h1", {}, "Join"), el("p", { class: "empty" }, error.message));
    }
    asking = false;
    if (again) { again = false; load(); }
  }
  function draw() {
    if (!gone) fill(place, ...page(shown, about, load));
  }
  // Spans come without a word of the record: while it goes on, and from the agent a little later.
  async function look() {
    if (asking || document.hidden || !shown || !spansMayCome(shown)) return;
    const before = shown;
    const seen = await ask(`${path}/spans`).catch(() => null);
    if (shown !== before || !seen || JSON.stringify(seen) === JSON.stringify(before.seen)) return;
    shown = { ...before, seen };
    draw();
  }
  load();
  const stop = whenChanged((ids) => { if (!ids || ids.has(id)) load(); });
  const looking = setInterval(look, 1000);
  return () => { gone = true; stop(); clearInterval(looking); };
}

function spansMayCome({ told: { join }, seen }) {
  if (seen && !seen.isKept) return false;
  return ["Queued", "Running", "Waiting"].includes(join.state) || Date.now() - Date.parse(join.updated) < 15000;
}

function page({ told, seen, machine }, about, load) {
  const { join, events } = told;
  document.title = `${join.node ?? join.id} · Berth`;
  return [
    el("p", { class: "small" }, el("a", { href: "#/joins", "data-keep": "back" }, "← Joins")),
    el("div", { class: "head" }, el("h1", {}, join.node ?? join.id), state(join.state), el("span", { class: "grow" }), ...decisions(join, load)),
    steps(join),
    join.diagnosis && why(join),
    el("section", { class: "card", "aria-labelledby": "time" }, el("h2", { id: "time" }, "How it went"), ...waterfall(told, seen, about)),
    el("div", { class: "cards" }, about_(join, about), machine && facts(machine)),
    story(events),
  ];
}

function steps(join) {
  const at = PHASES.indexOf(join.phase);
  const reached = new Map(join.reached.map(({ phase, at }) => [phase, at]));
  const now = { Queued: "stuck", Running: "now", Waiting: "stuck", Refused: "failed", Ready: "done", Ended: "done" }[join.state];
  const marks = { done: "done", now: "under way", stuck: "waits", failed: "stopped here", later: "not yet" };
  return el("ol", { class: "steps", "aria-label": "Phases" }, PHASES.map((phase, place) => {
    const step = place < at ? "done" : place > at ? "later" : now === "now" && reached.has(phase) ? "done" : now;
    return el("li", { "data-step": step }, phase, el("span", { class: "mark" }, marks[step]));
  }));
}

function why(join) {
  const { code, cause, mend, values, docs } = join.diagnosis;
  return el("section", { class: "card why", "data-state": join.state, "aria-labelledby": "why" },
    el("h2", { id: "why" }, el("span", { class: "code" }, code)),
    el("p", {}, cause),
    Object.keys(values).length > 0 && el("dl", { class: "facts", "aria-label": "Values" },
      Object.entries(values).flatMap(([name, value]) => [el("dt", {}, name), el("dd", { class: "mono" }, value)])),
    el("div", { class: "mend" }, el("p", {}, el("strong", {}, "Mend: "), mend), copier(mend, "the mend", "mend")),
    el("p", { class: "hint" }, join.waitingSince ? ["Waits since ", moment(join.waitingSince), ". It goes on by itself once the cause is gone. "] : "", docs));
}

function decisions(join, load) {
  if (join.diagnosis?.code !== "APPROVAL_PENDING" || join.decision) return [];
  const decide = async (approve, reason) => {
    try {
      await ask(`/joins/${join.id}/decision`, { method: "POST", body: { approve, reason } });
      say(approve ? "Approved." : "Denied.");
    } catch (error) { wrong(error.message); }
    load();
  };
  return [
    el("button", { type: "button", class: "main", "data-keep": "approve", onclick: () => decide(true, "") }, "Approve"),
    el("button", {
      type: "button", class: "danger", "data-keep": "deny", onclick: async () => {
        const reason = await confirm({ title: "Deny this join?", text: "The machine is refused; its token's use stays spent.", words: "Reason, for the record", action: "Deny", danger: true });
        if (reason !== null) decide(false, reason);
      },
    }, "Deny"),
  ];
}

function about_(join, about) {
  const trace = join.traceId && about.traceURL
    ? el("a", { href: about.traceURL.replaceAll("{trace}", join.traceId), target: "_blank", rel: "noopener noreferrer", "data-keep": "trace" }, join.traceId)
    : join.traceId;
  const rows = {
    Join: el("span", { class: "mono" }, join.id), Machine: join.node && el("a", { href: `#/nodes/${join.node}`, "data-keep": "node" }, join.node),
    Token: join.token && el("span", { class: "mono" }, join.token), From: join.source, Agent: join.agentVersion,
    Decision: join.decision, Began: moment(join.started), Changed: moment(join.updated), Trace: trace && el("span", { class: "mono" }, trace),
    "To Ready": join.state === "Ready" && took(Date.parse(join.updated) - Date.parse(join.started)),
  };
  return el("section", { class: "card", "aria-labelledby": "about" }, el("h2", { id: "about" }, "This join"),
    el("dl", { class: "facts" }, Object.entries(rows).filter(([, value]) => value).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])));
}

function facts({ node }) {
  if (!node.facts) return null;
  const { os, kernel, arch, cpu, memory, identity } = node.facts;
  return el("section", { class: "card", "aria-labelledby": "machine" }, el("h2", { id: "machine" }, "The machine"),
    tree({ identity, os, kernel, arch, cpu, memory }), el("p", { class: "hint" }, el("a", { href: `#/nodes/${node.name}`, "data-keep": "facts" }, "All that is known of it")));
}

function story(events) {
  const details = (event) => [
    ...Object.entries(event.values).map(([name, value]) => `${name}=${value}`),
    ...(event.diagnosis ? [`${event.diagnosis.code}: ${event.diagnosis.cause}`] : []),
  ].join(" · ");
  return el("section", { class: "card", "aria-labelledby": "story" }, el("h2", { id: "story" }, "The record"),
    el("div", { class: "scrolls", tabIndex: 0, role: "region", "aria-label": "The record" }, el("table", { class: "events" },
      el("thead", {}, el("tr", {}, ["Time", "Event", "Details"].map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, events.map((event) => el("tr", {}, el("td", {}, moment(event.at)), el("td", {}, event.kind), el("td", { class: "mono" }, details(event))))))));
}
