// Accuracy against something positive, on a logarithmic axis, as an SVG element.
const SPACE = "http://www.w3.org/2000/svg";
const WIDTH = 420;
const HEIGHT = 280;
const LEFT = 48;
const RIGHT = 14;
const TOP = 30;
const BOTTOM = 40;

function add(parent, name, attributes, text) {
  const element = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

function span(values) {
  const low = Math.min(...values);
  const high = Math.max(...values);
  return high > low ? [low, high] : [low - 0.5, high + 0.5];
}

export function scatter(title, xLabel, points) {
  const svg = document.createElementNS(SPACE, "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", title);
  const [low, high] = span(points.map((p) => Math.log10(p.x)));
  const [bottom, top] = span(points.map((p) => p.y));
  const x = (v) => LEFT + ((Math.log10(v) - low) / (high - low)) * (WIDTH - LEFT - RIGHT - 60) + 20;
  const y = (v) => HEIGHT - BOTTOM - 10 - ((v - bottom) / (top - bottom)) * (HEIGHT - TOP - BOTTOM - 20);
  add(svg, "text", { x: LEFT, y: 16 }, title);
  add(svg, "text", { x: WIDTH - RIGHT, y: HEIGHT - 6, "text-anchor": "end" }, xLabel);
  add(svg, "line", { x1: LEFT, y1: HEIGHT - BOTTOM, x2: WIDTH - RIGHT, y2: HEIGHT - BOTTOM });
  add(svg, "line", { x1: LEFT, y1: TOP, x2: LEFT, y2: HEIGHT - BOTTOM });
  for (const value of [bottom, top]) {
    add(svg, "text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(1));
  }
  for (const value of [10 ** low, 10 ** high]) {
    const label = value.toPrecision(3).replace(/\.?0+$/, "");
    add(svg, "text", { x: x(value), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, label);
  }
  for (const point of points) {
    const mark = add(svg, "circle", { cx: x(point.x), cy: y(point.y), r: 5, class: point.kind });
    add(mark, "title", {}, `${point.label}: ${point.y.toFixed(2)} %, ${point.x.toPrecision(4)}`);
    const right = x(point.x) > WIDTH / 2;
    const at = { x: x(point.x) + (right ? -8 : 8), y: y(point.y) - 7 };
    add(svg, "text", { ...at, "text-anchor": right ? "end" : "start" }, point.label);
  }
  return svg;
}
