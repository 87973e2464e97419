// Elements from words: text only ever becomes text, never markup.

/** An element with properties, attributes (data-*, aria-*, role, for…) and children. */
export function el(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name in element && !name.includes("-") && name !== "list") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Exchanges what an element holds; the focus stays on what has the same data-keep. */
export function fill(element, ...children) {
  const focused = element.contains(document.activeElement) ? document.activeElement.dataset.keep : undefined;
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  if (focused) {
    const again = [...element.querySelectorAll("[data-keep]")].find((found) => found.dataset.keep === focused);
    again?.focus({ preventScroll: true });
  }
}

/** A state: its word, with the shape and colour that belong to it. */
export function state(name) {
  return el("span", { class: "state", "data-state": name }, name);
}

/** A duration as kubectl shows ages: 12s, 5m, 3h, 2d. */
export function age(millis) {
  const seconds = Math.max(0, Math.floor(millis / 1000));
  if (seconds < 120) return `${seconds}s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)}h`;
  return `${Math.floor(seconds / 86400)}d`;
}

/** A short time as measurements show it. */
export function took(millis) {
  if (millis < 1000) return `${Math.round(millis)} ms`;
  if (millis < 60000) return `${(millis / 1000).toFixed(2)} s`;
  return age(millis);
}

/** A moment in the reader's time zone, with the exact one for who points at it. */
export function moment(iso) {
  if (!iso) return el("span", { class: "soft" }, "–");
  const at = new Date(iso);
  return el("time", { dateTime: iso, title: iso }, at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" }));
}

/** A button that copies a text and says so. */
export function copier(text, what, keep) {
  const button = el("button", { type: "button", "aria-label": `Copy ${what}`, "data-keep": keep }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
      say(`Copied ${what}.`);
    } catch {
      wrong("This browser does not let pages copy; mark the text and copy it by hand.");
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  return button;
}

/** Tells a screen reader, when it has time. */
export function say(text) {
  document.getElementById("said").textContent = text;
}

/** Tells what went wrong, until it is put away. */
export function wrong(text) {
  const toasts = document.getElementById("wrong");
  const toast = el("div", { class: "toast" }, el("p", {}, text));
  toast.append(el("button", { type: "button", class: "quiet", "aria-label": "Put away", onclick: () => toast.remove() }, "×"));
  while (toasts.children.length > 2) toasts.firstChild.remove();
  toasts.append(toast);
}

/** Asks before something is done; the answer is what was written, or null. */
export function confirm({ title, text, action, words, danger }) {
  return new Promise((resolve) => {
    const reason = words ? el("input", { id: "words", maxLength: 256, autocomplete: "off" }) : null;
    const dialog = el("dialog", { "aria-labelledby": "asked" });
    const form = el("form", { method: "dialog" },
      el("h2", { id: "asked" }, title), el("p", {}, text),
      reason && el("div", { class: "field" }, el("label", { htmlFor: "words" }, words), reason),
      el("div", { class: "actions" },
        el("button", { type: "submit", value: "yes", class: danger ? "danger" : "main" }, action),
        el("button", { type: "button", onclick: () => dialog.close("") }, "Cancel")));
    // The policy lets no form leave; the dialog is closed by hand.
    form.addEventListener("submit", (event) => { event.preventDefault(); dialog.close("yes"); });
    dialog.append(form);
    dialog.addEventListener("close", () => {
      const answer = dialog.returnValue === "yes" ? (reason ? reason.value : "") : null;
      dialog.remove();
      resolve(answer);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** A tree of plain data as lists of names and values; what is empty is left out. */
export function tree(data) {
  if (Array.isArray(data)) {
    return data.every((item) => typeof item !== "object")
      ? data.join(", ")
      : el("div", {}, data.map((item) => el("div", { class: "card" }, tree(item))));
  }
  if (data === null || typeof data !== "object") return String(data);
  const empty = (value) => value === null || value === "" || (typeof value === "object" && Object.keys(value).length === 0);
  return el("dl", { class: "facts" }, Object.entries(data).filter(([, value]) => !empty(value)).flatMap(([name, value]) => [
    el("dt", {}, name.replace(/([a-z])([A-Z])/g, "$1 $2").toLowerCase()), el("dd", {}, tree(value)),
  ]));
}
