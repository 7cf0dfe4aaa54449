// Fetches the plan, runs every job in a fresh frame, and posts what each found to the computer.
import { scatter } from "./plot.js";

const ALIVE_MS = 5000;
const element = (id) => document.getElementById(id);
const say = (text) => { element("status").textContent = text; };
const results = new Map();
let key = "";
let alive = 0;

function note(text) {
  const item = document.createElement("li");
  item.textContent = text;
  element("notes").append(item);
}

async function get(name) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
  return answer;
}

async function post(name, message) {
  const headers = { "Content-Type": "application/json", "X-Bloodedge-Key": key };
  const answer = await fetch(name, { method: "POST", headers, body: JSON.stringify(message) });
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error);
  return value;
}

// The smallest step of the clock that was seen in 50 ms; a browser may round it to 0.1 ms or more.
function clockStep() {
  const stop = performance.now() + 50;
  let step = Infinity;
  for (let last = performance.now(); last < stop;) {
    const now = performance.now();
    if (now > last) step = Math.min(step, now - last);
    last = now;
  }
  return (Number.isFinite(step) ? step : 1) * 1000;
}

async function findBackends(cores) {
  const backends = ["wasm"];
  const missing = {};
  if (cores < 2) missing.threads = "the device shows one core";
  else if (!crossOriginIsolated) missing.threads = "needs https or localhost";
  else backends.push("threads");
  if (!navigator.gpu) missing.webgpu = isSecureContext ? "not in this browser" : "needs https or localhost";
  else if (!(await navigator.gpu.requestAdapter().catch(() => null))) missing.webgpu = "no adapter";
  else backends.push("webgpu");
  return { backends, missing };
}

function visible() {
  return new Promise((resolve) => {
    const check = () => {
      if (document.visibilityState !== "visible") return;
      document.removeEventListener("visibilitychange", check);
      resolve();
    };
    document.addEventListener("visibilitychange", check);
    check();
  });
}

function openFrame() {
  return new Promise((resolve, reject) => {
    const frame = document.createElement("iframe");
    frame.src = "job.html";
    frame.onload = () => {
      if (frame.contentWindow.runJob) resolve(frame);
      else reject(new Error("the runtime could not be loaded: this browser may be too old"));
    };
    document.body.append(frame);
  });
}

// A page in the background is slowed down: what was timed then is timed again.
async function runVisibly(spec, images) {
  for (;;) {
    await visible();
    let hidden = false;
    const watch = () => { hidden ||= document.visibilityState !== "visible"; };
    document.addEventListener("visibilitychange", watch);
    const frame = await openFrame();
    try {
      const model = await (await get(`models/${spec.model}.tflite`)).arrayBuffer();
      const found = await frame.contentWindow.runJob(spec, model, images);
      if (!hidden) return found;
    } finally {
      document.removeEventListener("visibilitychange", watch);
      frame.remove();
    }
  }
}

function draw(plan, backends) {
  const rows = [];
  const points = [];
  for (const [id, found] of results) {
    const [m, b] = id.split("/").map(Number);
    const model = plan.models[m];
    const backend = backends[b];
    const on = backend.name === "threads" ? `wasm, ${backend.threads} threads` : backend.name;
    const row = document.createElement("tr");
    const cell = (text, kind) => {
      const td = document.createElement(kind ?? "td");
      td.textContent = text;
      row.append(td);
      return td;
    };
    cell(model.name, "th");
    cell(on);
    cell((model.bytes / 1000).toFixed(1));
    if (found.error) {
      const td = cell(found.error);
      td.colSpan = 5;
      td.className = "reason";
    } else {
      cell(found.accuracy === null ? "" : (100 * found.accuracy).toFixed(2));
      cell(found.median_us.toFixed(0) + (found.drift ? "†" : ""));
      cell(found.p90_us === null ? "" : found.p90_us.toFixed(0));
      cell(found.p99_us === null ? "" : found.p99_us.toFixed(0));
      cell(found.load_ms.toFixed(1));
      const label = model.name.replace(/\.tflite$/, "");
      const y = 100 * (found.accuracy ?? 0);
      points.push({ label, y, kind: backend.name, kb: model.bytes / 1000, us: found.median_us });
    }
    rows.push(row);
  }
  element("rows").replaceChildren(...rows);
  if (!points.length) return;
  const sizes = points.map((p) => ({ ...p, x: p.kb }));
  const times = points.map((p) => ({ ...p, x: p.us }));
  element("plots").replaceChildren(
    scatter("accuracy %, against size", "KB", sizes),
    scatter("accuracy %, against median latency", "µs", times),
  );
}

async function main() {
  const plan = await (await get("plan.json")).json();
  element("title").textContent = `${plan.title}; ${plan.shape[0]} test images, ${plan.models.length} models`;
  element("synthetic").hidden = !plan.synthetic;
  const cores = Math.max(1, navigator.hardwareConcurrency || 1);
  const timer = clockStep();
  const { backends: wanted, missing } = await findBackends(cores);
  for (const [name, why] of Object.entries(missing)) note(`${name}: ${why}`);
  const about = { user_agent: navigator.userAgent, cores, isolated: crossOriginIsolated, timer_us: timer };
  const { key: mine, jobs, backends } = await post("start", { ...about, backends: wanted, missing });
  key = mine;
  alive = setInterval(() => post("alive", {}).catch(() => {}), ALIVE_MS);
  await navigator.wakeLock?.request("screen").catch(() => {});
  say("fetching the test images");
  const images = await (await get("images.bin")).arrayBuffer();
  element("progress").max = jobs.length;
  for (const [index, job] of jobs.entries()) {
    element("progress").value = index;
    const id = `${job.model}/${job.backend}`;
    if (results.get(id)?.error) continue;
    const backend = backends[job.backend];
    say(`${index + 1} of ${jobs.length}: ${plan.models[job.model].name} on ${backend.name}`);
    const spec = { ...plan, ...job, backend, timer_us: timer, score: job.repeat === 0 };
    const found = await runVisibly(spec, images);
    results.set(id, await post("job", { ...job, ...found }));
    draw(plan, backends);
  }
  element("progress").value = jobs.length;
  clearInterval(alive);
  await post("finish", {});
  say("done: the results are on the computer, and this page can be closed");
}

main().catch((error) => {
  say(`stopped: ${error.message}`);
  // The computer would wait for ever for what still seems alive.
  clearInterval(alive);
  if (key) post("finish", { stopped: error.message }).catch(() => {});
});
