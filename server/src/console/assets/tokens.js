// Tokens: made with all that they can be bound to, shown once, revoked.

import { age, confirm, copier, el, fill, say, state, wrong } from "./dom.js";
import { List } from "./list.js";
import { Refused, ask } from "./server.js";
import { whenChanged } from "./store.js";

/** Shows it; returns how to leave. */
export function show(main) {
  main.className = "reads";
  let tokens = [];
  let asked = false;
  const list = new List({
    label: "Tokens", key: (token) => token.id, order: { column: 4, down: true }, columns: columns(revoke),
    empty: () => (asked ? "There is no token." : "Asking the server…"),
  });
  list.element.style.height = "min(60vh, 32rem)";
  const made = el("div", { tabIndex: -1 });
  const form = maker(async (token) => { await load(); showMade(token); });
  form.hidden = true;
  const open = el("button", { type: "button", class: "main", "aria-expanded": "false", onclick: () => { unfold(form.hidden); } }, "Make a token");
  function unfold(shown) {
    form.hidden = !shown;
    open.setAttribute("aria-expanded", String(shown));
    if (shown) { fill(made); form.querySelector("input").focus(); }
  }
  main.replaceChildren(el("div", { class: "head" }, el("h1", {}, "Tokens"), el("span", { class: "grow" }), open), made, form,
    el("div", { class: "below" }, list.element));

  function showMade({ token, command, record }) {
    unfold(false);
    fill(made, el("section", { class: "card", "aria-labelledby": "made" },
      el("h2", { id: "made" }, `Token ${record.id} is made`),
      el("p", {}, "Its secret is shown here once and kept nowhere. Run this on the machine:"),
      el("pre", { class: "secret", id: "command", tabIndex: 0, "aria-label": "Join command" }, command),
      el("div", { class: "actions" }, copier(command, "the join command"), el("button", { type: "button", onclick: () => fill(made) }, "Put away")),
      el("details", {}, el("summary", {}, "Only the token"), el("pre", { class: "secret", id: "secret", tabIndex: 0, "aria-label": "Token" }, token), copier(token, "the token"))));
    made.focus();
    say(`Token ${record.id} is made.`);
  }
  async function load() {
    try {
      ({ tokens } = await ask("/tokens"));
      asked = true;
      list.set(tokens);
    } catch (error) { if (error.status !== 401) wrong(error.message); }
  }
  async function revoke(token) {
    const answer = await confirm({ title: `Revoke ${token.id}?`, text: "No further machine gets in with it. Those that did stay.", action: "Revoke", danger: true });
    if (answer === null) return;
    try {
      await ask(`/tokens/${token.id}/revoke`, { method: "POST" });
      say(`Token ${token.id} is revoked.`);
    } catch (error) { wrong(error.message); }
    load();
  }
  load();
  let soon;
  const stop = whenChanged(() => { clearTimeout(soon); soon = setTimeout(load, 500); });
  const ticking = setInterval(() => list.draw(), 1000);
  return () => { stop(); clearTimeout(soon); clearInterval(ticking); list.end(); };
}

const standing = (token) => {
  if (token.revoked) return "Revoked";
  if (Date.parse(token.expires) <= Date.now()) return "Expired";
  return token.usedBy.length >= token.uses ? "Spent" : "Good";
};
const SHAPES = { Revoked: "Refused", Expired: "Ended", Spent: "Ended", Good: "Ready" };
const remaining = (token) => (standing(token) === "Good" ? age(Date.parse(token.expires) - Date.now()) : "–");
const columns = (revoke) => [
  { name: "State", width: "7rem", text: standing, cell: (token) => { const shown = state(SHAPES[standing(token)]); shown.textContent = standing(token); return shown; }, sort: standing },
  { name: "Id", width: "8rem", text: (token) => token.id, cell: (token) => el("span", { class: "mono" }, token.id), sort: (token) => token.id },
  { name: "Names", text: (token) => token.names, sort: (token) => token.names },
  { name: "Used", width: "5rem", text: (token) => `${token.usedBy.length}/${token.uses}`, sort: (token) => token.usedBy.length },
  { name: "Made", width: "5rem", wide: true, text: (token) => age(Date.now() - Date.parse(token.created)), sort: (token) => token.created },
  { name: "Left", width: "5rem", wide: true, text: remaining, sort: (token) => token.expires },
  { name: "By", width: "10rem", wide: true, text: (token) => token.createdBy || "–", sort: (token) => token.createdBy },
  { name: "For", wide: true, text: (token) => token.description || "–", sort: (token) => token.description },
  {
    name: "", width: "7.5rem", text: standing,
    cell: (token) => (standing(token) === "Good" ? el("button", { type: "button", class: "danger", "aria-label": `Revoke ${token.id}`, onclick: () => revoke(token) }, "Revoke") : ""),
  },
];

/** The form. Wrong fields are told where they stand. */
function maker(made) {
  const field = (name, wire, title, hint, input) => {
    const bad = el("p", { class: "bad", id: `${name}-bad`, "data-wire": wire, hidden: true });
    input.id = name;
    input.setAttribute("aria-describedby", `${name}-hint ${name}-bad`);
    return el("div", { class: "field" }, el("label", { htmlFor: name }, title), input, el("p", { class: "hint", id: `${name}-hint` }, hint), bad);
  };
  const text = (more) => el("input", { autocomplete: "off", spellcheck: false, ...more });
  const lines = () => el("textarea", { rows: 2, spellcheck: false });
  const form = el("form", { class: "card", noValidate: true, "aria-label": "Make a token" },
    el("div", { class: "fields" },
      field("names", "binding.names", "Node name", "A name, or a pattern such as rack1-*. Empty: any.", text()),
      field("uses", "binding.uses", "Machines", "How many may use it, 1 to 10000.", text({ type: "number", value: "1", min: "1", max: "10000" })),
      field("ttl", "ttl_ms", "Lives for", "At most 30 days.", el("select", {}, LIVES.map(([name, millis]) => el("option", { value: String(millis) }, name)))),
      field("pool", "binding.pool", "Pool", "Empty: default.", text()),
      field("networks", "binding.networks", "Networks", "Where joins may come from, CIDR, one a line. Empty: anywhere.", lines()),
      field("labels", "binding.labels", "Labels", "KEY=VALUE, one a line.", lines()),
      field("taints", "binding.taints", "Taints", "KEY=VALUE:EFFECT, one a line.", lines()),
      field("description", "description", "For", "Your words, for the record.", text({ maxLength: 256 }))),
    el("div", { class: "field check" }, el("input", { type: "checkbox", id: "approval" }), el("label", { htmlFor: "approval" }, "A person approves each join")),
    el("p", { class: "bad", id: "form-bad", role: "alert" }),
    el("div", { class: "actions" }, el("button", { type: "submit", class: "main" }, "Make")));
  const value = (id) => form.querySelector(`#${id}`).value.trim();
  const each = (id) => value(id).split("\n").map((line) => line.trim()).filter(Boolean);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    for (const bad of form.querySelectorAll(".bad")) { bad.textContent = ""; bad.hidden = bad.id !== "form-bad"; }
    for (const input of form.elements) input.removeAttribute("aria-invalid");
    const labels = Object.fromEntries(each("labels").map((line) => { const at = line.indexOf("="); return at < 0 ? [line, ""] : [line.slice(0, at), line.slice(at + 1)]; }));
    const body = {
      names: value("names"), pool: value("pool"), uses: Math.max(0, Math.trunc(Number(value("uses")) || 0)), networks: each("networks"), labels, taints: each("taints"),
      approval: form.querySelector("#approval").checked, ttlMillis: Number(value("ttl")), description: value("description"),
    };
    const button = form.querySelector("button");
    button.disabled = true;
    try {
      await made(await ask("/tokens", { method: "POST", body }));
      form.reset();
    } catch (error) { blame(form, error); }
    button.disabled = false;
  });
  return form;
}

function blame(form, error) {
  const rest = [];
  for (const { field, problem } of error instanceof Refused ? error.fields : []) {
    const bad = [...form.querySelectorAll("[data-wire]")].find((place) => field.startsWith(place.dataset.wire));
    if (!bad) { rest.push(`${field}: ${problem}`); continue; }
    bad.textContent = `${bad.textContent}${bad.textContent ? "; " : ""}${problem}`;
    bad.hidden = false;
    form.querySelector(`#${bad.id.replace("-bad", "")}`).setAttribute("aria-invalid", "true");
  }
  form.querySelector("#form-bad").textContent = rest.length > 0 ? rest.join("; ") : error.fields?.length ? "" : error.message;
  form.querySelector("[aria-invalid]")?.focus();
}

const MINUTE = 60000;
const LIVES = [["15 minutes", 15 * MINUTE], ["1 hour", 60 * MINUTE], ["8 hours", 480 * MINUTE], ["1 day", 1440 * MINUTE], ["7 days", 10080 * MINUTE], ["30 days", 43200 * MINUTE]];
