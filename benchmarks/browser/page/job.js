// One model on one backend in a frame of its own, which is thrown away afterwards: every job
// starts with a fresh runtime and gives its memory back.
import { Tensor, loadAndCompile, loadLiteRt } from "@litertjs/core";

const TIMED_IMAGES = 64;
// A duration should be this many times the clock's step, or several inferences share one.
const STEPS = 50;
const YIELD_MS = 200;

const breathe = () => new Promise((resolve) => setTimeout(resolve, 0));

function reader(input, images, size) {
  if (input.dtype === "uint8") return (i) => images.subarray(i * size, (i + 1) * size);
  if (input.dtype === "float32") {
    return (i) => Float32Array.from(images.subarray(i * size, (i + 1) * size));
  }
  throw new Error(`the model's input is ${input.dtype}, LiteRT.js takes float32 and uint8 images`);
}

function argmax(values) {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}

// Reading the answer is part of it: on WebGPU nothing is computed before somebody waits for it.
async function infer(model, tensor) {
  const outputs = await model.run(tensor);
  const values = await outputs[0].data();
  for (const output of outputs) output.delete();
  return values;
}

async function timeInferences(model, tensors, spec, block) {
  const durations = [];
  const stop = performance.now() + spec.seconds * 1000;
  let next = 0;
  let breathed = performance.now();
  while (durations.length * block < spec.least || performance.now() < stop) {
    if (durations.length >= spec.most) break;
    const begin = performance.now();
    for (let i = 0; i < block; i++) await infer(model, tensors[next++ % tensors.length]);
    const end = performance.now();
    durations.push(((end - begin) * 1000) / block);
    if (end - breathed > YIELD_MS) {
      await breathe();
      breathed = performance.now();
    }
  }
  return durations;
}

async function classify(model, read, shape, count) {
  const predictions = [];
  let breathed = performance.now();
  for (let i = 0; i < count; i++) {
    const tensor = new Tensor(read(i), shape);
    predictions.push(argmax(await infer(model, tensor)));
    tensor.delete();
    if (performance.now() - breathed > YIELD_MS) {
      await breathe();
      breathed = performance.now();
    }
  }
  return predictions;
}

async function measure(spec, bytes, images) {
  await loadLiteRt("./litertjs/wasm/", { threads: spec.backend.name === "threads" });
  const webgpu = spec.backend.name === "webgpu";
  const begin = performance.now();
  const model = await loadAndCompile(bytes, {
    accelerator: webgpu ? "webgpu" : "wasm",
    cpuOptions: { numThreads: spec.backend.threads },
  });
  const loadMs = performance.now() - begin;
  if (webgpu && (model.options.accelerator !== "webgpu" || !model.isFullyAccelerated)) {
    throw new Error("WebGPU does not run all of its operations");
  }
  const [count, ...image] = spec.shape;
  const size = image.reduce((a, b) => a * b, 1);
  const input = model.getInputDetails()[0];
  const read = reader(input, images, size);
  const shape = [1, ...image];
  if (input.shape.length !== 4 || shape.some((n, i) => n !== input.shape[i])) {
    throw new Error(`the model's input is ${Array.from(input.shape)}, the images are ${shape}`);
  }
  const tensors = [];
  for (let i = 0; i < Math.min(count, TIMED_IMAGES); i++) tensors.push(new Tensor(read(i), shape));
  const first = performance.now();
  await infer(model, tensors[0]);
  const firstMs = performance.now() - first;
  const warm = { ...spec, seconds: spec.warmup, least: 1 };
  const rough = await timeInferences(model, tensors, warm, 1);
  // The mean, because a coarse clock gives many zeros.
  const mean = rough.reduce((a, b) => a + b, 0) / rough.length;
  const block = Math.max(1, Math.ceil((STEPS * spec.timer_us) / Math.max(mean, 1)));
  return {
    load_ms: loadMs,
    first_ms: firstMs,
    block,
    durations_us: await timeInferences(model, tensors, spec, block),
    predictions: spec.score ? await classify(model, read, shape, count) : [],
  };
}

// The buffers are the page's; the runtime knows only arrays of this frame.
globalThis.runJob = async (spec, model, images) => {
  try {
    return await measure(spec, new Uint8Array(model), new Uint8Array(images));
  } catch (error) {
    return { error: String(error?.message ?? error) };
  }
};
