// The page: who is there, which view is shown, whether the line to the server stands.

import { el, say, wrong } from "./dom.js";
import { show as showJoin } from "./join.js";
import { show as showJoins } from "./joins.js";
import { show as showNodes, showOne as showNode } from "./nodes.js";
import { ask, enter, leave, whenStranger } from "./server.js";
import { show as showServers } from "./servers.js";
import { follow } from "./store.js";
import { show as showTokens } from "./tokens.js";

const main = document.getElementById("content");
let about = null;
let leaveView = () => {};
let unfollow = () => {};

const VIEWS = [
  [/^joins$/, "Joins", () => showJoins(main)],
  [/^joins\/([^/]+)$/, "Join", (id) => showJoin(main, id, about)],
  [/^nodes$/, "Nodes", () => showNodes(main)],
  [/^nodes\/([^/]+)$/, "Node", (name) => showNode(main, name)],
  [/^tokens$/, "Tokens", () => showTokens(main)],
  [/^servers$/, "Servers", () => showServers(main, about)],
];

function route(moved) {
  const path = location.hash.replace(/^#\//, "") || "joins";
  const view = VIEWS.find(([pattern]) => pattern.test(path)) ?? VIEWS[0];
  leaveView();
  main.className = "";
  document.title = `${view[1]} · Berth`;
  for (const link of document.querySelectorAll("#views a")) {
    if (path.startsWith(link.hash.slice(2))) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  leaveView = view[2](decodeURIComponent(path.match(view[0])?.[1] ?? ""));
  if (moved) main.focus();
}

function line(stands, error) {
  const shown = document.getElementById("line");
  const text = stands ? "Live" : "Not connected";
  if (shown.textContent !== text) shown.textContent = text;
  shown.dataset.state = stands ? "live" : "lost";
  if (error) signIn(error.message);
}

async function start() {
  try {
    about = await ask("/about");
  } catch (error) {
    main.replaceChildren(el("p", { class: "empty" }, `${error.message}. `, el("button", { type: "button", onclick: start }, "Try again")));
    return;
  }
  if (!about.operator) { signIn(); return; }
  document.getElementById("views").hidden = false;
  document.getElementById("who").hidden = false;
  document.getElementById("operator").textContent = about.operator;
  document.getElementById("leave").hidden = !about.hasSession;
  unfollow();
  unfollow = follow(line);
  route(false);
}

function signIn(why) {
  unfollow();
  unfollow = () => {};
  leaveView();
  leaveView = () => {};
  about = null;
  document.getElementById("views").hidden = true;
  document.getElementById("who").hidden = true;
  document.title = "Sign in · Berth";
  const token = el("input", { id: "token", type: "password", autocomplete: "current-password", required: true, "aria-describedby": "token-hint token-bad" });
  const bad = el("p", { class: "bad", id: "token-bad", role: "alert" }, why ?? "");
  const form = el("form", {}, el("div", { class: "field" }, el("label", { htmlFor: "token" }, "Operator's token"), token,
    el("p", { class: "hint", id: "token-hint" }, "It is in the token file on the server; what berth-server run prints says where."), bad),
  el("button", { type: "submit", class: "main" }, "Sign in"));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    bad.textContent = "";
    try {
      await enter(token.value.trim());
      say("Signed in.");
      start();
    } catch (error) {
      bad.textContent = error.message;
      token.focus();
    }
  });
  main.className = "reads";
  main.replaceChildren(el("div", { class: "sign-in" }, el("section", { class: "card", "aria-labelledby": "sign-in" }, el("h1", { id: "sign-in" }, "Sign in to Berth"), form)));
  token.focus();
}

whenStranger(() => signIn());
addEventListener("hashchange", () => { if (about) route(true); });
document.getElementById("leave").addEventListener("click", async () => { await leave(); signIn(); });
addEventListener("keydown", (event) => {
  if (event.key === "/" && !["INPUT", "TEXTAREA", "SELECT"].includes(event.target.tagName)) {
    const search = document.getElementById("search");
    if (search) { event.preventDefault(); search.focus(); }
  }
});
addEventListener("unhandledrejection", (event) => wrong(event.reason?.message ?? "The page failed; load it again."));
start();
