// Nodes: the list, kept fresh by what the joins tell, and one node with its facts.

import { age, confirm, copier, el, fill, moment, say, state, tree, wrong } from "./dom.js";
import { List } from "./list.js";
import { ask } from "./server.js";
import { joins, whenChanged } from "./store.js";

/** Every known node's row by its name. */
export const rows = new Map();
let sought = "";
let chosen = "All";
const status = (node) => (node.banned ? "Banned" : node.readiness);

/** Shows the list; returns how to leave. */
export function show(main) {
  let asked = false;
  const list = new List({
    label: "Nodes", key: (node) => node.name, columns: COLUMNS, order: { column: 1, down: false },
    empty: () => (!asked ? "Asking the server…" : rows.size === 0 ? "No machine has a name here yet." : "No node is like that."),
  });
  const chips = new Map(["All", "Ready", "NotReady", "Banned"].map((name) => [name, el("button", {
    type: "button", "aria-pressed": String(name === chosen), onclick: () => {
      chosen = name;
      for (const [other, chip] of chips) chip.setAttribute("aria-pressed", String(other === name));
      draw();
    },
  }, name === "All" ? "All" : state(name), " ", el("span", { class: "count" }, "0"))]));
  const search = el("input", {
    type: "search", id: "search", class: "search", placeholder: "Name, pool, reason", "aria-label": "Search nodes", value: sought,
    oninput: () => { sought = search.value; draw(); },
  });
  main.replaceChildren(
    el("div", { class: "head" }, el("h1", {}, "Nodes"), el("span", { class: "grow" }), search),
    el("div", { class: "chips", role: "group", "aria-label": "Show nodes that are" }, [...chips.values()]), list.element);

  function draw() {
    const began = performance.now();
    const words = sought.trim().toLowerCase();
    const counts = { All: rows.size, Ready: 0, NotReady: 0, Banned: 0 };
    const shown = [];
    for (const node of rows.values()) {
      const kind = node.banned ? "Banned" : node.readiness === "Ready" ? "Ready" : "NotReady";
      counts[kind] += 1;
      if (chosen !== "All" && kind !== chosen) continue;
      if (words && !`${node.name} ${node.pool} ${node.code ?? ""}`.toLowerCase().includes(words)) continue;
      shown.push(node);
    }
    for (const [name, chip] of chips) chip.lastChild.textContent = String(counts[name]);
    list.set(shown);
    performance.measure("berth:update", { start: began, end: performance.now() });
  }
  async function all() {
    try {
      const { nodes } = await ask("/nodes");
      rows.clear();
      for (const node of nodes) rows.set(node.name, node);
      asked = true;
      draw();
    } catch (error) { if (error.status !== 401) wrong(error.message); }
  }
  const fresh = keep(all, draw);
  const stop = whenChanged((ids) => fresh(ids));
  const ticking = setInterval(() => list.draw(), 1000);
  // Heartbeats are no events: when a node was last seen is asked for now and then.
  const asking = setInterval(() => { if (!document.hidden) all(); }, 30000);
  all();
  draw();
  return () => { stop(); clearInterval(ticking); clearInterval(asking); list.end(); };
}

/** Asks for the nodes of the joins that changed: one by one if they are few. */
function keep(all, draw) {
  const names = new Set();
  let under = false;
  return async function fresh(ids) {
    for (const id of ids ?? []) if (joins.get(id)?.node) names.add(joins.get(id).node);
    if (under) return;
    under = true;
    while (names.size > 0) {
      const some = [...names];
      names.clear();
      if (some.length > 8) await all();
      else {
        for (const name of some) {
          const found = await ask(`/nodes/${encodeURIComponent(name)}`).catch((error) => error);
          if (found.row) rows.set(name, found.row);
          else if (found.status === 404) rows.delete(name);
        }
        draw();
      }
    }
    under = false;
  };
}

const left = (node) => {
  const millis = Date.parse(node.certificateNotAfter) - Date.now();
  return millis <= 0 ? "expired" : age(millis);
};
const seen = (node) => age(Date.now() - Date.parse(node.lastSeen));
const COLUMNS = [
  { name: "State", width: "7.5rem", text: status, cell: (node) => state(status(node)), sort: status },
  { name: "Name", width: "34%", text: (node) => node.name, cell: (node) => el("a", { href: `#/nodes/${node.name}` }, node.name), sort: (node) => node.name },
  { name: "Pool", width: "9rem", wide: true, text: (node) => node.pool, sort: (node) => node.pool },
  { name: "Reason", text: (node) => node.code ?? "–", sort: (node) => node.code ?? "" },
  { name: "Certificate", width: "7rem", wide: true, text: left, sort: (node) => node.certificateNotAfter },
  { name: "Seen", width: "5rem", wide: true, text: seen, sort: (node) => node.lastSeen },
];

/** Shows one node; returns how to leave. */
export function showOne(main, name) {
  main.className = "reads";
  const place = el("div", {});
  main.replaceChildren(place);
  let gone = false;
  async function load() {
    try {
      const { node } = await ask(`/nodes/${encodeURIComponent(name)}`);
      if (!gone) fill(place, ...page(node, load));
    } catch (error) {
      if (!gone) fill(place, el("h1", {}, name), el("p", { class: "empty" }, error.message));
    }
  }
  load();
  const stop = whenChanged((ids) => { if (!ids || [...ids].some((id) => joins.get(id)?.node === name)) load(); });
  return () => { gone = true; stop(); };
}

function page(node, load) {
  document.title = `${node.name} · Berth`;
  const { facts, diagnosis, ban, labels, capacity, allocatable } = node;
  const resources = Object.entries(capacity);
  return [
    el("p", { class: "small" }, el("a", { href: "#/nodes", "data-keep": "back" }, "← Nodes")),
    el("div", { class: "head" }, el("h1", {}, node.name), state(ban ? "Banned" : node.readiness), el("span", { class: "grow" }), ...deeds(node, load)),
    diagnosis && el("section", { class: "card why", "aria-labelledby": "why" }, el("h2", { id: "why" }, el("span", { class: "code" }, diagnosis.code)), el("p", {}, diagnosis.cause),
      el("div", { class: "mend" }, el("p", {}, el("strong", {}, "Mend: "), diagnosis.mend), copier(diagnosis.mend, "the mend", "mend"))),
    ban && el("section", { class: "card why", "data-state": "Refused" }, el("h2", {}, "Banned"), el("p", {}, `By ${ban.by}${ban.reason ? `: ${ban.reason}` : ""} at `, moment(ban.at))),
    el("div", { class: "cards" },
      el("section", { class: "card", "aria-labelledby": "node" }, el("h2", { id: "node" }, "The node"), el("dl", { class: "facts" }, [
        ["Pool", node.pool], ["Join", el("a", { href: `#/joins/${node.join}`, class: "mono", "data-keep": "join" }, node.join)], ["Machine", el("span", { class: "mono" }, node.machine)],
        ["Certificate", [el("span", { class: "mono" }, node.certificateSerial || "serial not known yet"), " until ", moment(node.certificateNotAfter)]], ["Seen", moment(node.lastSeen)],
        ["Labels", Object.entries(labels).map(([key, value]) => `${key}=${value}`).join(", ")], ["Taints", node.taints.join(", ")],
      ].filter(([, value]) => value && value.length !== 0).flatMap(([term, value]) => [el("dt", {}, term), el("dd", {}, value)]))),
      resources.length > 0 && el("section", { class: "card", "aria-labelledby": "resources" }, el("h2", { id: "resources" }, "Resources"), el("table", { class: "events" },
        el("thead", {}, el("tr", {}, ["Resource", "Capacity", "Allocatable"].map((title) => el("th", { scope: "col" }, title)))),
        el("tbody", {}, resources.map(([what, amount]) => el("tr", {}, [what, amount, allocatable[what] ?? "–"].map((cell) => el("td", { class: "num" }, cell)))))))),
    facts && el("section", { class: "card", "aria-labelledby": "facts" }, el("h2", { id: "facts" }, "The machine's facts"), tree(facts)),
  ];
}

function deeds(node, load) {
  const deed = (verb, question) => async () => {
    const reason = await confirm(question);
    if (reason === null) return;
    try {
      await ask(`/nodes/${encodeURIComponent(node.name)}/${verb}`, { method: "POST", body: verb === "ban" ? { reason } : undefined });
      say(`${node.name}: ${verb} done.`);
      if (verb === "forget") { rows.delete(node.name); location.hash = "#/nodes"; return; }
    } catch (error) { wrong(error.message); }
    load();
  };
  const ban = { title: `Ban ${node.name}?`, text: "Its machine's line is cut at once and it is refused from now on. The name stays bound.", words: "Reason, for the record", action: "Ban", danger: true };
  const unban = { title: `Lift the ban of ${node.name}?`, text: "Its machine may come back.", action: "Lift the ban" };
  const forget = { title: `Forget ${node.name}?`, text: "The name is freed for another machine; the one that has it must join anew.", action: "Forget", danger: true };
  return [
    node.ban
      ? el("button", { type: "button", "data-keep": "unban", onclick: deed("unban", unban) }, "Lift the ban…")
      : el("button", { type: "button", class: "danger", "data-keep": "ban", onclick: deed("ban", ban) }, "Ban…"),
    el("button", { type: "button", class: "danger", "data-keep": "forget", onclick: deed("forget", forget) }, "Forget…"),
  ];
}
