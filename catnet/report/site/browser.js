// The case browser: a variant, an organ, a case, a slice, and what the network made of it.

const STOPS = [[0, 32, 77], [87, 92, 109], [166, 157, 117], [255, 234, 70]];
const TRUTH = { color: "#56b4e9", dash: [] };
const PREDICTED = { color: "#e69f00", dash: [3, 2] };

class CaseBrowser {
  constructor(root, data) {
    this.root = root;
    this.data = data;
    this.form = root.querySelector("form").elements;
    this.masks = remembered((place) => decodeCase(data, place));
    this.sheet = remembered((name) => decodeImage(data.sheets[name].image));
    this.prior = remembered((url) => decodeImage(url));
    this.state = { variant: 0, organ: 0, case: 0, slice: 0 };
    this.drawing = 0;
    fill(this.form.variant, data.variants.map((name, place) => [place, name]));
    for (const name of ["variant", "organ", "case"]) {
      this.form[name].addEventListener("change", () => this.choose({ [name]: Number(this.form[name].value) }));
    }
    this.form.slice.addEventListener("input", () => this.scroll(Number(this.form.slice.value)));
    root.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
    root.querySelector(".stage").addEventListener("keydown", (event) => this.press(event));
    this.choose({ case: undefined });
  }

  /** How `variant` did on a case; undefined where it did not see it. */
  entry(place, variant = this.state.variant) {
    return this.data.cases[place].variants.find((one) => one.variant === variant);
  }

  /** Cases that the variant has with the organ, the worst first. */
  cases() {
    const { organ } = this.state;
    const dice = (place) => this.entry(place)?.volume[organ] ?? null;
    const all = this.data.cases.map((_, place) => place).filter((place) => dice(place) !== null);
    return all.sort((a, b) => dice(a) - dice(b));
  }

  /** Places of the views that can be scrolled through. */
  views() {
    const entry = this.entry(this.state.case);
    const all = this.data.cases[this.state.case].views.map((view, place) => [view, place]);
    return all.filter(([view, place]) => view[0] === this.state.organ && entry.dice[place]).map(([, place]) => place);
  }

  /** Change what is shown; what does not exist there gives way to what does. */
  choose(change) {
    const known = this.current();
    Object.assign(this.state, change);
    const organs = this.data.organs.map((name, place) => [place, name])
      .filter(([place]) => this.data.cases.some((_, one) => this.entry(one)?.volume[place] != null));
    if (!organs.some(([place]) => place === this.state.organ)) this.state.organ = organs[0][0];
    const cases = this.cases();
    if (!cases.includes(this.state.case)) this.state.case = cases[0];
    fill(this.form.organ, organs);
    fill(this.form.case, cases.map((place) => [place, this.caseLabel(place)]));
    for (const name of ["variant", "organ", "case"]) this.form[name].value = this.state[name];
    const views = this.views();
    this.form.slice.max = views.length - 1;
    const slices = views.map((place) => this.data.cases[this.state.case].views[place][1]);
    this.scroll(known === undefined ? Math.floor(slices.length / 2) : nearest(slices, known));
  }

  /** The number of the slice that is shown, once there is one. */
  current() {
    return this.view === undefined ? undefined : this.data.cases[this.state.case].views[this.view][1];
  }

  caseLabel(place) {
    const { query, support, protocol } = this.data.cases[place];
    const dice = this.entry(place).volume[this.state.organ].toFixed(1);
    return `${dice} \u2013 ${query} by ${support}, ${protocol}`;
  }

  press(event) {
    const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, Home: -1e9, End: 1e9 }[event.key];
    if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.scroll(this.state.slice + step);
  }

  scroll(place) {
    const views = this.views();
    this.state.slice = Math.min(Math.max(place, 0), views.length - 1);
    this.view = views[this.state.slice];
    this.form.slice.value = this.state.slice;
    const text = `slice ${this.current()}, ${this.state.slice + 1} of ${views.length}`;
    this.form.slice.setAttribute("aria-valuetext", text);
    this.draw().catch((error) => this.fail(error));
  }

  async draw() {
    const turn = ++this.drawing;
    const { data, view, state } = this;
    const one = data.cases[state.case];
    const entry = this.entry(state.case);
    const [masks, query, support, prior] = await Promise.all([
      this.masks(state.case), this.sheet(one.query), this.sheet(one.first),
      entry.prior && this.prior(entry.prior),
    ]);
    if (turn !== this.drawing) return; // something else was chosen meanwhile
    const [, slice, source] = one.views[view];
    const { truth, support: shown, rounds } = masks[view];
    const own = rounds[state.variant];
    const tile = { image: query, place: data.sheets[one.query].slices.indexOf(slice) };
    const sourceTile = { image: support, place: data.sheets[one.first].slices.indexOf(source) };
    const panels = [{ title: `support, slice ${source}`, tile: sourceTile, lines: [[shown, TRUTH]] }];
    if (prior) {
      const place = entry.dice.slice(0, view).filter(Boolean).length;
      panels.push({ title: "prior", tile: { image: prior, place, size: entry.tokens, heat: true }, lines: [[truth, TRUTH]] });
    }
    own.forEach((mask, number) => panels.push({
      title: `M${subscript(number)}`, dice: entry.dice[view][number], tile, lines: [[truth, TRUTH], [mask, PREDICTED]],
    }));
    this.paint(document.getElementById("final"), { tile, lines: [[truth, TRUTH], [own.at(-1), PREDICTED]] });
    const strip = document.getElementById("strip");
    while (strip.children.length > panels.length) strip.lastChild.remove();
    panels.forEach((panel, number) => this.showPanel(strip, panel, number));
    this.root.querySelector(".prior-key").hidden = !prior;
    this.describe(one, entry, slice);
  }

  showPanel(strip, panel, number) {
    const place = strip.children[number] || strip.appendChild(document.createElement("div"));
    if (!place.firstChild) place.append(document.createElement("canvas"), document.createElement("p"));
    const [canvas, label] = place.children;
    const name = document.createElement("span");
    const score = document.createElement("span");
    name.textContent = panel.title;
    score.textContent = "dice" in panel ? percent(panel.dice) : "";
    label.replaceChildren(name, score);
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${panel.title} ${score.textContent}`);
    this.paint(canvas, panel);
  }

  paint(canvas, { tile, lines }) {
    const [height, width] = this.data.size;
    const room = (canvas.clientWidth || 256) * Math.max(window.devicePixelRatio || 1, 1);
    const scale = Math.max(1, Math.min(8, room / width));
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const context = canvas.getContext("2d", { willReadFrequently: Boolean(tile.heat) });
    const [rows, columns] = tile.size || this.data.size;
    const [x, y] = [tile.place % this.data.columns, Math.floor(tile.place / this.data.columns)];
    const from = [x * columns, y * rows, columns, rows];
    context.imageSmoothingEnabled = !tile.heat;
    context.imageSmoothingQuality = "high";
    context.drawImage(tile.image, ...from, 0, 0, canvas.width, canvas.height);
    if (tile.heat) colorize(context, canvas.width, canvas.height);
    for (const [mask, line] of lines) drawContour(context, mask, { width, height, scale, ...line });
  }

  describe(one, entry, slice) {
    const { organ, variant, slice: place } = this.state;
    const dice = percent(entry.dice[this.view].at(-1));
    const shots = one.support.includes("+") ? ` (shown: ${one.first})` : "";
    document.getElementById("caption").textContent =
      `${this.data.variants[variant]}, ${this.data.organs[organ]}: case ${one.query} by support ${one.support}${shots}, ` +
      `${one.protocol}, slice ${slice} (${place + 1} of ${this.views().length}). ` +
      `Dice ${percent(entry.volume[organ])} of the volume, ${dice} on this slice.`;
  }

  fail(error) {
    const box = document.getElementById("failure");
    box.textContent = `The case browser cannot show this case (${error.message}); try a current browser.`;
    box.hidden = false;
  }
}

function fill(select, options) {
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
}

function nearest(numbers, wanted) {
  const far = numbers.map((number) => Math.abs(number - wanted));
  return far.indexOf(Math.min(...far));
}

function percent(value) {
  return value === null ? "no organ" : `${value.toFixed(1)} %`;
}

function subscript(number) {
  return String.fromCharCode(0x2080 + number);
}

/** Grey to a scale from dark blue to yellow, which every eye tells apart. */
function colorize(context, width, height) {
  const pixels = context.getImageData(0, 0, width, height);
  for (let i = 0; i < pixels.data.length; i += 4) {
    const share = (pixels.data[i] / 255) * (STOPS.length - 1);
    const low = Math.min(Math.floor(share), STOPS.length - 2);
    for (let c = 0; c < 3; c++) {
      pixels.data[i + c] = STOPS[low][c] + (share - low) * (STOPS[low + 1][c] - STOPS[low][c]);
    }
  }
  context.putImageData(pixels, 0, 0);
}

function startBrowser() {
  const source = document.getElementById("browser-data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const browser = new CaseBrowser(document.getElementById("browser"), data);
  for (const button of document.querySelectorAll(".worst button")) {
    button.addEventListener("click", () => {
      const { variant, organ } = button.dataset;
      browser.choose({
        variant: data.variants.indexOf(variant), organ: data.organs.indexOf(organ), case: Number(button.dataset.case),
      });
      document.querySelector(".stage").focus();
    });
  }
  let waiting = 0;
  window.addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => browser.scroll(browser.state.slice), 150);
  });
}

startBrowser();
