"use strict";
// The live page. No build step and no library: it asks the API that everybody uses, and listens to its event streams.

const $ = (id) => document.getElementById(id);
const KINDS = ["execute", "block", "shard", "reduce", "fold", "wrap", "groth16"];
const STAGES = ["execute", "block", "fold", "wrap", "groth16"];
const TERMINAL = new Set(["settled", "failed", "cancelled"]);
const SPANS_MAX = 3000;
const WAITING_MAX = 200;
const SVG = "http://www.w3.org/2000/svg";

const state = {
  key: null, batches: [], selected: null, detail: null, workers: new Map(), skew: 0, streams: {}, refresh: null, login: 0,
};

// ---- small helpers

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "class") made.className = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

function drawn(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function duration(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const s = ms / 1000;
  const parts = (large, big, small, little) => (small === 0 ? `${large} ${big}` : `${large} ${big} ${small} ${little}`);
  if (s < 9.95) return `${Number(s.toFixed(1))} s`;
  const whole = Math.round(s);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return parts(Math.floor(whole / 60), "min", whole % 60, "s");
  const minutes = Math.round(s / 60);
  return parts(Math.floor(minutes / 60), "h", minutes % 60, "min");
}

function perUnit(ns) {
  if (ns < 1e3) return `${ns} ns`;
  if (ns < 1e6) return `${(ns / 1e3).toFixed(1)} µs`;
  return duration(ns / 1e6);
}

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) { count /= 1024; unit += 1; }
  return `${unit === 0 ? count : count.toFixed(1)} ${units[unit]}`;
}

const time = (ms) => new Date(ms).toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });
// The coordinator's clock, so that a wrong clock here shifts nothing.
const now = () => Date.now() + state.skew;

function say(text, kind = "") {
  $("status").textContent = text;
  $("status").className = kind;
}

// ---- the API

class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `status ${status}`);
    this.status = status;
    this.code = problem.code;
  }
}

async function call(path, options = {}) {
  const headers = { ...(options.headers || {}), Authorization: `Bearer ${state.key}` };
  const answer = await fetch(path, { ...options, headers, cache: "no-store" });
  if (!answer.ok) {
    let problem = {};
    try { problem = await answer.json(); } catch { /* not from us: a proxy, perhaps */ }
    throw new ApiError(answer.status, problem);
  }
  return answer;
}

const ask = async (path) => (await call(path)).json();
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// An event stream over fetch: EventSource cannot send a key. Reconnects, and goes on after the last event it has had.
async function follow(name, path, onEvent) {
  state.streams[name]?.abort();
  const control = new AbortController();
  state.streams[name] = control;
  let last = null;
  let wait = 500;
  while (!control.signal.aborted) {
    try {
      const headers = last === null ? {} : { "Last-Event-ID": last };
      const answer = await call(path, { headers, signal: control.signal });
      say("live", "good");
      wait = 500;
      for await (const event of frames(answer.body)) {
        if (event.id !== null) last = event.id;
        if (onEvent(event.name, JSON.parse(event.data)) === "end") return;
      }
    } catch (error) {
      if (control.signal.aborted) return;
      if (error.status === 401) return login("The key is not valid.");
      if (error.status === 404) return;
      say(`connection lost, trying again: ${error.message}`, "bad");
    }
    await pause(wait);
    wait = Math.min(wait * 2, 10000);
  }
}

async function* frames(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    for (let end = rest.indexOf("\n\n"); end >= 0; end = rest.indexOf("\n\n")) {
      const frame = { id: null, name: "message", data: "" };
      for (const line of rest.slice(0, end).split("\n")) {
        const colon = line.indexOf(":");
        const [field, text] = [line.slice(0, colon), line.slice(colon + 1).replace(/^ /, "")];
        if (field === "id") frame.id = text;
        else if (field === "event") frame.name = text;
        else if (field === "data") frame.data += text;
      }
      rest = rest.slice(end + 2);
      if (frame.data !== "") yield frame;
    }
  }
}

// ---- the list

function showList(list) {
  state.batches = list.batches;
  $("list-empty").hidden = list.batches.length > 0;
  const items = list.batches.map((batch) => {
    const end = batch.ended_ms ?? now();
    const button = element("button",
      { type: "button", "aria-current": String(batch.id === state.selected), onclick: () => select(batch.id) },
      element("span", { class: "name" }, `#${batch.id} ${batch.idempotency_key}`),
      element("span", { class: `badge ${batch.phase}` }, batch.phase),
      element("span", { class: "sub" },
        `chain ${batch.chain}, number ${batch.sequence} · ${batch.tasks_done} done, ${batch.tasks_running} running · ` +
        duration(Math.max(0, end - batch.submitted_ms))));
    return element("li", {}, button);
  });
  $("list").replaceChildren(...items);
  if (state.selected === null && list.batches.length > 0) {
    const live = list.batches.find((batch) => !TERMINAL.has(batch.phase));
    select((live ?? list.batches[0]).id);
  }
}

// ---- the selected batch

function select(id) {
  state.selected = id;
  state.detail = null;
  for (const button of $("list").querySelectorAll("button")) {
    button.setAttribute("aria-current", String(button.textContent.startsWith(`#${id} `)));
  }
  load(id);
  follow("batch", `v1/batches/${id}/events`, (name, data) => {
    soon();
    const phase = { phase: data.phase, snapshot: data.batch?.phase }[name];
    return TERMINAL.has(phase) ? "end" : undefined;
  });
}

// Many events come at once: the whole status is asked for a little later, once for all of them.
function soon() {
  if (state.refresh !== null) return;
  state.refresh = setTimeout(() => {
    state.refresh = null;
    if (state.key !== null && state.selected !== null) load(state.selected);
  }, 300);
}

async function load(id) {
  try {
    const detail = await ask(`v1/batches/${id}`);
    if (state.selected !== id) return;
    state.skew = detail.now_ms - Date.now();
    state.detail = detail;
    showDetail();
  } catch (error) {
    if (error.status !== 429) say(error.message, "bad");
  }
}

function showDetail() {
  const { batch, tasks, files, eta_ms: eta } = state.detail;
  $("detail-title").textContent = `Batch #${batch.id}`;
  showFacts(batch, tasks, eta);
  $("failure").hidden = !batch.failure;
  $("failure").textContent = batch.failure ? `${batch.failure.code}: ${batch.failure.text}` : "";
  const done = tasks.filter((task) => task.state === "done").length;
  showStages(tasks);
  $("bar").hidden = tasks.length === 0;
  $("bar-done").style.width = `${(100 * done) / Math.max(1, tasks.length)}%`;
  showTimeline();
  showWaiting(tasks.filter((task) => task.wait));
  $("files-box").hidden = files.length === 0;
  $("files").replaceChildren(...files.map((file) => element("li", {},
    element("button", { type: "button", onclick: () => download(batch.id, file.name) }, file.name),
    ` ${bytes(file.bytes)}, BLAKE3 `, element("code", {}, file.blake3.slice(0, 16)))));
}

function showFacts(batch, tasks, eta) {
  const end = batch.ended_ms ?? now();
  const running = tasks.filter((task) => task.state === "running").length;
  const facts = [
    ["Phase", batch.phase],
    ["ETA", eta === null ? (TERMINAL.has(batch.phase) ? "ended" : "not known") : `in ${duration(Math.max(0, eta - now()))}`],
    ["Tasks", `${tasks.filter((task) => task.state === "done").length} done, ${running} running, ${tasks.length} known`],
    ["Since", `${time(batch.submitted_ms)} (${duration(Math.max(0, end - batch.submitted_ms))})`],
    ["Rollup", `chain ${batch.chain}, number ${batch.sequence}`],
    ["Key", batch.idempotency_key],
    ["Payload", bytes(batch.payload_bytes)],
    ["Priority", String(batch.priority)],
    ["Attempts again", String(batch.retries)],
  ];
  if (batch.deadline_ms !== null) {
    facts.push(["Deadline", `${time(batch.deadline_ms)}${batch.deadline_is_hard ? ", hard" : ""}`]);
  }
  $("facts").replaceChildren(...facts.map(([name, text]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, text))));
}

// The graph of the batch, one box for each stage; parts are counted with the stage that has asked for them.
function showStages(tasks) {
  const stages = STAGES.map((kind) => ({ kind, of: tasks.filter((task) => task.kind === kind) }));
  $("stages").hidden = tasks.length === 0;
  $("stages").replaceChildren(...stages.map(({ kind, of }) => {
    const done = of.filter((task) => task.state === "done").length;
    const running = of.filter((task) => task.state === "running").length;
    const sum = (field) => of.reduce((all, task) => all + task[field], 0);
    const look = of.length === 0 ? "unknown" : done === of.length ? "done" : running > 0 ? "running" : "waiting";
    const lines = [of.length === 0 ? "not known yet" : `${done} of ${of.length} done`];
    if (sum("parts") > 0) lines.push(`${sum("parts_done")} of ${sum("parts")} parts`);
    return element("li", { class: look, "data-kind": kind },
      element("b", {}, element("i", { class: `fill-${kind}` }), kind),
      ...lines.map((line) => element("span", {}, line)));
  }));
}

function showWaiting(waiting) {
  $("waiting-box").hidden = waiting.length === 0;
  $("waiting").replaceChildren(...waiting.slice(0, WAITING_MAX).map((task) => element("tr", {},
    element("td", {}, task.name),
    element("td", { "data-code": task.wait.code }, task.wait.text),
    element("td", { class: "number" }, String(task.failures + task.losses)))));
  $("waiting-note").textContent =
    waiting.length > WAITING_MAX ? `and ${waiting.length - WAITING_MAX} more` : "";
}

async function download(id, name) {
  try {
    const blob = await (await call(`v1/batches/${id}/files/${encodeURIComponent(name)}`)).blob();
    const link = element("a", { href: URL.createObjectURL(blob), download: `batch-${id}-${name}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  } catch (error) {
    say(error.message, "bad");
  }
}

// ---- the timeline

// Distances of the lines of time.
const STEPS_MS = [
  ...[0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30].map((s) => s * 1e3),
  ...[1, 2, 5, 10, 15, 30].map((min) => min * 60e3),
  ...[1, 2, 4, 6, 12, 24, 48, 168].map((h) => h * 3600e3),
];

// Attempts that overlap on one worker get rows of their own within its lane.
function rows(spans) {
  const ends = [];
  return spans.map((span) => {
    let row = ends.findIndex((end) => end <= span.started_ms);
    if (row < 0) row = ends.push(0) - 1;
    ends[row] = span.end;
    return row;
  });
}

function showTimeline() {
  const { batch, spans: all, spans_dropped: dropped } = state.detail;
  $("timeline-box").hidden = all.length === 0;
  if (all.length === 0) return;
  const until = batch.ended_ms ?? now();
  const spans = all.slice(-SPANS_MAX).map((span) => ({ ...span, end: span.ended_ms ?? until }));
  const lanes = new Map();
  for (const span of spans) {
    if (!lanes.has(span.worker)) lanes.set(span.worker, []);
    lanes.get(span.worker).push(span);
  }
  const [left, row, gap, top] = [116, 18, 6, 20];
  const width = Math.max(480, $("timeline-scroll").clientWidth - 2);
  const from = spans.reduce((first, span) => Math.min(first, span.started_ms), batch.submitted_ms);
  const total = Math.max(1, until - from);
  const x = (ms) => left + ((width - left - 10) * (ms - from)) / total;
  const parts = [];
  let y = top;
  for (const [worker, own] of [...lanes].sort(([a], [b]) => a - b)) {
    const placed = rows(own);
    const height = (Math.max(...placed) + 1) * row;
    parts.push(drawn("rect", { class: "lane", x: 0, y, width, height }));
    const name = drawn("text", { class: "worker", x: 6, y: y + 13 }, shortened(workerName(worker), 16));
    name.append(drawn("title", {}, `worker ${worker}`));
    parts.push(name);
    own.forEach((span, at) => parts.push(...bar(span, x, y + placed[at] * row, row)));
    y += height + gap;
  }
  const step = STEPS_MS.find((ms) => total / ms <= (width - left) / 70) ?? total;
  for (let ms = 0; ms <= total; ms += step) {
    const at = x(from + ms);
    parts.unshift(drawn("line", { class: "grid", x1: at, x2: at, y1: top - 4, y2: y }));
    const anchor = at > width - 40 ? "end" : "middle";
    parts.push(drawn("text", { x: at, y: 12, "text-anchor": anchor }, duration(ms)));
  }
  if (batch.ended_ms === null) {
    parts.push(drawn("line", { class: "now", x1: x(until), x2: x(until), y1: top - 4, y2: y }));
  }
  const svg = $("timeline");
  svg.setAttribute("viewBox", `0 0 ${width} ${y}`);
  svg.setAttribute("height", y);
  svg.replaceChildren(...parts);
  const hidden = all.length - spans.length + dropped;
  $("timeline-note").textContent = hidden > 0 ? `${hidden} earlier attempts are not shown` : "";
}

function bar(span, x, y, row) {
  const width = Math.max(2, x(span.end) - x(span.started_ms));
  const kind = KINDS.includes(span.kind) ? span.kind : "block";
  const rect = drawn("rect", {
    class: `fill-${kind} span-${span.state}`, x: x(span.started_ms), y: y + 1, width, height: row - 2, rx: 2,
  });
  const lasts = duration(span.end - span.started_ms);
  rect.append(drawn("title", {}, `${span.task}: ${span.state}, ${lasts} (attempt ${span.attempt}, worker ${span.worker})`));
  const parts = [rect];
  if (width > 7 * span.task.length && ["accepted", "running", "reported"].includes(span.state)) {
    parts.push(drawn("text", { class: "label", x: x(span.started_ms) + 4, y: y + 13 }, span.task));
  }
  return parts;
}

// ---- workers

const shortened = (text, max) => (text.length > max ? `${text.slice(0, max - 1)}…` : text);
const workerName = (id) => state.workers.get(id)?.name || `worker ${String(id).slice(-8)}`;

// Equal models in a row are counted: 4 × H100.
function devices(models) {
  const counts = new Map();
  for (const model of models) counts.set(model, (counts.get(model) ?? 0) + 1);
  return [...counts].map(([model, count]) => (count > 1 ? `${count} × ${model}` : model)).join(", ") || "CPU";
}

async function showWorkers() {
  const { workers } = await ask("v1/workers");
  const isNew = workers.some((worker) => state.workers.get(worker.id)?.name !== worker.name);
  state.workers = new Map(workers.map((worker) => [worker.id, worker]));
  if (isNew && state.detail) showTimeline();
  const text = (worker) => {
    if (worker.quarantined_until_ms !== null) return "quarantined";
    return worker.present ? "here" : "gone";
  };
  $("workers-empty").hidden = workers.length > 0;
  $("workers").replaceChildren(...workers.map((worker) => element("tr", {},
    element("td", { title: `worker ${worker.id}, ${worker.build}` }, workerName(worker.id)),
    element("td", { title: worker.lost.join("\n") },
      devices(worker.devices) + (worker.lost.length > 0 ? `, ${worker.lost.length} out of service` : "")),
    element("td", { class: `is-${text(worker)}` }, text(worker)),
    element("td", { class: "number" }, String(worker.running)),
    element("td", { class: "number" }, bytes(worker.memory_used)),
    element("td", {}, worker.speeds.map((speed) => `${speed.kind} ${perUnit(speed.ns_per_unit)}`).join(", ")))));
}

// What changes without an event: the time, reasons for waiting, workers.
async function tick(login) {
  for (;;) {
    await pause(3000);
    if (state.login !== login) return;
    const isLive = state.detail && !TERMINAL.has(state.detail.batch.phase);
    if (isLive && !document.hidden) await load(state.selected);
    if (!document.hidden) await showWorkers().catch(() => {});
  }
}

// ---- key and theme

function login(error = "") {
  for (const control of Object.values(state.streams)) control.abort();
  state.streams = {};
  state.key = null;
  state.login += 1;
  sessionStorage.removeItem("assay-key");
  $("main").hidden = true;
  $("forget").hidden = true;
  $("login").hidden = false;
  $("login-error").textContent = error;
  say("a key is needed");
  $("key").focus();
}

function begin(key) {
  Object.assign(state, { key, selected: null, detail: null, batches: [], workers: new Map() });
  state.login += 1;
  sessionStorage.setItem("assay-key", key);
  $("login").hidden = true;
  $("main").hidden = false;
  $("forget").hidden = false;
  follow("list", "v1/events", (name, data) => { if (name === "batches") showList(data); });
  showWorkers().catch(() => {});
  tick(state.login);
}

function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  $("theme").textContent = `Theme: ${theme}`;
  localStorage.setItem("assay-theme", theme);
}

$("theme").addEventListener("click", () => {
  const order = { auto: "dark", dark: "light", light: "auto" };
  setTheme(order[localStorage.getItem("assay-theme") ?? "auto"]);
});
$("forget").addEventListener("click", () => login());
$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  begin($("key").value.trim());
  $("key").value = "";
});
addEventListener("resize", () => { if (state.detail) showTimeline(); });

$("legend").replaceChildren(
  ...KINDS.map((kind) => element("li", {}, element("i", { class: `fill-${kind}` }), kind)),
  ...[["under way", "live"], ["failed or wrong", "bad"], ["taken back", "back"]].map(([text, look]) =>
    element("li", {}, element("i", { class: `look-${look}` }), text)));
const asked = new URLSearchParams(location.hash.slice(1));
setTheme(asked.get("theme") ?? localStorage.getItem("assay-theme") ?? "auto");
// A key may come behind the #, which browsers do not send to anybody; it leaves the address at once.
const given = asked.get("key");
if (location.hash) history.replaceState(null, "", location.pathname);
const known = given ?? sessionStorage.getItem("assay-key");
if (known) begin(known);
else login();
