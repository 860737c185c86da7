// Contours of masks: marching squares through the middles between pixels inside and outside.

// Where a contour enters a cell, it goes around the corner on its right, which is inside.
const AROUND = { top: "left", left: "bottom", bottom: "right", right: "top" };

function crossings([topLeft, topRight, bottomRight, bottomLeft]) {
  const sides = { top: [topLeft, topRight], right: [topRight, bottomRight], bottom: [bottomRight, bottomLeft], left: [bottomLeft, topLeft] };
  const entered = Object.keys(sides).filter((side) => sides[side][0] && !sides[side][1]);
  const left = Object.keys(sides).filter((side) => !sides[side][0] && sides[side][1]);
  return entered.map((side) => [side, left.length > 1 ? AROUND[side] : left[0]]);
}

const CROSSINGS = Array.from({ length: 16 }, (_, corners) =>
  crossings([corners & 8, corners & 4, corners & 2, corners & 1].map(Boolean)));
const MIDDLE = { top: [1, 0], right: [2, 1], bottom: [1, 2], left: [0, 1] };

/** Closed lines around a mask, as flat lists of x and y in pixels. */
function contours(mask, width, height) {
  const at = (x, y) => (x >= 0 && y >= 0 && x < width && y < height ? mask[y * width + x] : 0);
  const span = 2 * width + 5;
  const next = new Map();
  for (let y = -1; y < height; y++) {
    for (let x = -1; x < width; x++) {
      const corners = 8 * at(x, y) + 4 * at(x + 1, y) + 2 * at(x + 1, y + 1) + at(x, y + 1);
      for (const [from, to] of CROSSINGS[corners]) {
        const key = (side) => (2 * y + 2 + MIDDLE[side][1]) * span + 2 * x + 2 + MIDDLE[side][0];
        next.set(key(from), key(to));
      }
    }
  }
  const lines = [];
  while (next.size) {
    const line = [];
    let place = next.keys().next().value;
    while (next.has(place)) {
      line.push((place % span) / 2 - 0.5, Math.floor(place / span) / 2 - 0.5);
      const following = next.get(place);
      next.delete(place);
      place = following;
    }
    lines.push(line);
  }
  return lines.map(smoothed);
}

/** A closed line without the steps of the pixels: every point moves less than half a pixel. */
function smoothed(line) {
  const { length } = line;
  return line.map((value, i) => (line[(i + length - 2) % length] + 2 * value + line[(i + 2) % length]) / 4);
}

/** Add a closed line to the path: curves from middle to middle, bent by the points between. */
function tracePath(context, line, scale) {
  const { length } = line;
  const middle = (i) => [(line[i] + line[(i + 2) % length]) / 2, (line[i + 1] + line[(i + 3) % length]) / 2];
  const start = middle(length - 2);
  context.moveTo(start[0] * scale, start[1] * scale);
  for (let i = 0; i < length; i += 2) {
    const [x, y] = middle(i);
    context.quadraticCurveTo(line[i] * scale, line[i + 1] * scale, x * scale, y * scale);
  }
  context.closePath();
}

/** Draw the contour of a mask; a dark line below it keeps it visible on bright tissue. */
function drawContour(context, mask, { width, height, scale, color, dash }) {
  context.beginPath();
  for (const line of contours(mask, width, height)) tracePath(context, line, scale);
  const thickness = Math.max(1.5, scale * 0.55);
  context.setLineDash([]);
  context.strokeStyle = "rgb(0 0 0 / 0.55)";
  context.lineWidth = thickness * 1.8;
  context.stroke();
  context.setLineDash(dash.map((part) => part * thickness));
  context.strokeStyle = color;
  context.lineWidth = thickness;
  context.stroke();
}
