// What catnet/report/recorded.py and browser.py packed.

/** Masks of a case, view by view: {truth, support, rounds: {variant: [M_0, ...]}}. */
async function decodeCase(data, place) {
  const one = data.cases[place];
  const packed = Uint8Array.from(atob(one.masks), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const next = maskReader(new Uint8Array(await new Response(stream).arrayBuffer()), data.size);
  return one.views.map((_, view) => {
    const found = { truth: next(), support: next(), rounds: {} };
    for (const { variant, dice } of one.variants) {
      if (dice[view]) found.rounds[variant] = dice[view].map(next);
    }
    return found;
  });
}

/** A function that gives one mask after the other. */
function maskReader(bytes, [height, width]) {
  let cursor = 0;
  const number = () => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[cursor++];
      value |= (byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  return () => {
    const places = [];
    for (let i = 0, count = number(); i < count; i++) {
      const folded = number();
      const rest = folded & 1 ? -(folded + 1) / 2 : folded / 2;
      places.push((i > 1 ? places[i - 2] : 0) + width + rest);
    }
    const mask = new Uint8Array(height * width);
    for (let i = 0; i < places.length; i += 2) {
      mask.fill(1, places[i], i + 1 < places.length ? places[i + 1] : mask.length);
    }
    return mask;
  };
}

/** A picture that a data URL holds. */
function decodeImage(url) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error("a picture of this page cannot be read"));
    image.src = url;
  });
}

/** Call `make` once for every key. */
function remembered(make) {
  const known = new Map();
  return (key) => {
    if (!known.has(key)) known.set(key, make(key));
    return known.get(key);
  };
}
