// Servers and how they are.

import { el, fill, state } from "./dom.js";
import { ask } from "./server.js";

/** Shows it; returns how to leave. */
export function show(main, about) {
  main.className = "reads";
  const place = el("div", { class: "cards" });
  main.replaceChildren(el("div", { class: "head" }, el("h1", {}, "Servers")),
    el("p", { class: "soft" }, `Machines join at ${about.endpoint}. Cluster ${about.cluster}, berth-server ${about.version}.`), place);
  let last = "";
  async function load() {
    try {
      const { servers } = await ask("/servers");
      const told = JSON.stringify(servers);
      if (told !== last) fill(place, servers.map(card));
      last = told;
    } catch (error) {
      last = "";
      fill(place, el("p", { class: "empty" }, error.message));
    }
  }
  load();
  const asking = setInterval(() => { if (!document.hidden) load(); }, 5000);
  return () => clearInterval(asking);
}

function card(server) {
  const verdict = state(server.ready ? "Ready" : "Failed");
  if (!server.ready) verdict.textContent = server.checks.length > 0 ? "Not ready" : "No answer";
  return el("section", { class: "card", "aria-label": server.name }, el("div", { class: "head" }, el("h2", {}, server.name), el("span", { class: "grow" }), verdict),
    server.reason && el("p", {}, server.reason),
    server.checks.length === 0 && server.ready && el("p", { class: "soft" }, "It answers, and has no checks of its own with this backend."),
    el("dl", { class: "facts" }, server.checks.flatMap((check) => {
      const shown = state(check.ok ? "Ready" : "Failed");
      shown.textContent = check.ok ? "holds" : "fails";
      return [el("dt", {}, check.name), el("dd", {}, shown, check.reason ? ` ${check.reason}` : "")];
    })));
}
