// The live list of joins: counted by state, filtered, searched.

import { age, el, say, state } from "./dom.js";
import { List } from "./list.js";
import { isWhole, joins, whenChanged } from "./store.js";

const STATES = ["Queued", "Running", "Waiting", "Ready", "Refused", "Ended"];
let chosen = "All";
let sought = "";

/** Shows it; returns how to leave. */
export function show(main) {
  const list = new List({
    label: "Joins", key: (join) => join.id, columns: COLUMNS, order: { column: 5, down: true },
    empty: () => (!isWhole() ? "Asking the server…" : joins.size === 0 ? "No machine has asked to join yet." : "No join is like that."),
  });
  const chips = new Map(["All", ...STATES].map((name) => [name, el("button", {
    type: "button", "aria-pressed": String(name === chosen), onclick: () => choose(name),
  }, name === "All" ? "All" : state(name), " ", el("span", { class: "count" }, "0"))]));
  const search = el("input", {
    type: "search", class: "search", id: "search", placeholder: "Name, id, reason, address", "aria-label": "Search joins", value: sought,
    oninput: () => { sought = search.value; draw(); },
  });
  main.replaceChildren(
    el("div", { class: "head" }, el("h1", {}, "Joins"), el("span", { class: "grow" }), search),
    el("div", { class: "chips", role: "group", "aria-label": "Show joins that are" }, [...chips.values()]),
    list.element);

  function choose(name) {
    chosen = name;
    for (const [other, chip] of chips) chip.setAttribute("aria-pressed", String(other === name));
    list.element.scrollTop = 0;
    draw();
    say(`${list.items.length} joins`);
  }
  function draw() {
    const counts = Object.fromEntries(STATES.map((name) => [name, 0]));
    const words = sought.trim().toLowerCase();
    const shown = [];
    for (const join of joins.values()) {
      counts[join.state] += 1;
      if (chosen !== "All" && join.state !== chosen) continue;
      if (words && !text(join).includes(words)) continue;
      shown.push(join);
    }
    for (const [name, chip] of chips) {
      const count = String(name === "All" ? joins.size : counts[name]);
      if (chip.lastChild.textContent !== count) chip.lastChild.textContent = count;
    }
    list.set(shown);
  }
  const stop = whenChanged((ids) => { draw(); tell(ids); });
  const ticking = setInterval(() => list.draw(), 1000);
  draw();
  return () => { stop(); clearInterval(ticking); list.end(); };
}

/** What a screen reader hears of changes: each of a few, else how many. */
function tell(ids) {
  if (!ids || !isWhole() || ids.size === 0) return;
  if (ids.size > 3) { say(`${ids.size} joins changed`); return; }
  say([...ids].map((id) => {
    const join = joins.get(id);
    if (!join) return `${id}: gone`;
    return `${join.node ?? join.id}: ${join.state}${join.diagnosis ? `, ${join.diagnosis.code}` : ""}`;
  }).join(". "));
}

function text(join) {
  join.text ??= [join.node, join.id, join.source, join.token, join.phase, join.diagnosis?.code, join.diagnosis?.cause]
    .filter(Boolean).join(" ").toLowerCase();
  return join.text;
}

const reason = (join) => (join.diagnosis ? `${join.diagnosis.code}: ${join.diagnosis.cause}` : "–");
const since = (join) => age(Date.now() - Date.parse(join.waitingSince ?? join.updated));

const COLUMNS = [
  { name: "State", width: "7rem", text: (join) => join.state, cell: (join) => state(join.state), sort: (join) => STATES.indexOf(join.state) },
  {
    name: "Machine", width: "24%", text: (join) => join.node ?? join.id, sort: (join) => join.node ?? `~${join.id}`,
    cell: (join) => el("a", { href: `#/joins/${join.id}`, class: join.node ? "" : "mono" }, join.node ?? join.id),
  },
  { name: "Phase", width: "8.5rem", wide: true, text: (join) => join.phase, sort: (join) => PHASES.indexOf(join.phase) },
  { name: "Reason", text: reason, sort: reason },
  { name: "For", width: "4.5rem", wide: true, text: since, sort: (join) => -join.updatedMs },
  { name: "Began", width: "5.5rem", wide: true, text: (join) => age(Date.now() - join.startedMs), sort: (join) => join.startedMs },
  { name: "From", width: "10rem", wide: true, text: (join) => join.source ?? "–", sort: (join) => join.source ?? "" },
];

/** The five phases in their order. */
export const PHASES = ["initialization", "authentication", "authorization", "configuration", "registration"];
