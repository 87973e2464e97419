// The joins as the server tells them: one stream for the whole page. A tab that
// nobody sees lets go of it, and goes on where it was when it is seen again.

import { Refused, events } from "./server.js";

// The server speaks every ten seconds: a line that is silent for longer is dead.
const SILENCE = 30000;

const heardBy = new Set();
const changed = new Set();
let running = null;
let last = null;
let whole = false;

/** Every known join by its id. */
export const joins = new Map();

/** Calls back after changes, at most once a frame: with the ids that changed, or
    null where everything may have. Returns how to stop. */
export function whenChanged(callback) {
  heardBy.add(callback);
  return () => heardBy.delete(callback);
}

/** Whether all joins were told. */
export function isWhole() { return whole; }

let planned = false;
let all = false;
function plan(everything) {
  all ||= everything;
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => {
    planned = false;
    const ids = all ? null : new Set(changed);
    changed.clear();
    all = false;
    const began = performance.now();
    for (const callback of [...heardBy]) callback(ids);
    performance.measure("berth:update", { start: began, end: performance.now() });
  });
}

/** Takes one event of the stream. */
export function take(event) {
  if (event.kind === "open") {
    // Who is in the queue is told anew: it may have moved on while nobody listened.
    lose([...joins.values()].filter((join) => join.state === "Queued").map((join) => join.id));
  } else if (event.kind === "gone") {
    lose(event.data);
  } else if (event.kind === "whole") {
    joins.clear();
    whole = false;
    plan(true);
  } else if (event.kind === "joins") {
    const began = performance.now();
    for (const join of event.data) {
      join.startedMs = Date.parse(join.started);
      join.updatedMs = Date.parse(join.updated);
      joins.set(join.id, join);
      changed.add(join.id);
    }
    if (event.id) {
      last = event.id;
      if (!whole) { whole = true; plan(true); }
    }
    plan(false);
    performance.measure("berth:take", { start: began, end: performance.now() });
  }
}

function lose(ids) {
  for (const id of ids) { joins.delete(id); changed.add(id); }
  if (ids.length > 0) plan(false);
}

/** Follows the server until it is told to stop; tells how the line is. */
export function follow(line) {
  const stop = new AbortController();
  let pause = 0;
  const run = async () => {
    while (!stop.signal.aborted) {
      if (document.hidden) {
        await new Promise((seen) => {
          const look = () => { if (!document.hidden || stop.signal.aborted) { document.removeEventListener("visibilitychange", look); seen(); } };
          document.addEventListener("visibilitychange", look);
          stop.signal.addEventListener("abort", look);
        });
        continue;
      }
      running = new AbortController();
      const abort = () => running.abort();
      stop.signal.addEventListener("abort", abort);
      let alive = setTimeout(abort, SILENCE);
      try {
        await events("/joins/watch", last, running.signal, (event) => {
          clearTimeout(alive);
          alive = setTimeout(abort, SILENCE);
          pause = 0;
          line(true);
          take(event);
        });
      } catch (error) {
        if (error instanceof Refused && error.status === 401) { line(false, error); return; }
      }
      clearTimeout(alive);
      stop.signal.removeEventListener("abort", abort);
      if (stop.signal.aborted) return;
      if (!document.hidden) line(false);
      pause = Math.min(15000, Math.max(500, pause * 2));
      await new Promise((on) => setTimeout(on, pause * (0.75 + Math.random() / 2)));
    }
  };
  // Half a minute in the background is not worth a new stream.
  let leaving;
  const hidden = () => {
    clearTimeout(leaving);
    if (document.hidden) leaving = setTimeout(() => running?.abort(), 30000);
  };
  document.addEventListener("visibilitychange", hidden);
  run();
  return () => {
    stop.abort();
    document.removeEventListener("visibilitychange", hidden);
    joins.clear();
    last = null;
    whole = false;
  };
}
