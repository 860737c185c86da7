"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const state = document.getElementById("state");
const opacity = document.getElementById("opacity");
const contour = document.getElementById("contour");
const planes = document.getElementById("planes");
const HIDDEN = "none";

const channel = (color, place) => parseInt(color.slice(1 + 2 * place, 3 + 2 * place), 16);

/** A color table of the organs, or of one color for all of them; 0 is clear. */
function colormap(single) {
  const colors = ["#000000", ...data.organs.map(([, color]) => single ?? color)];
  return {
    R: colors.map((color) => channel(color, 0)),
    G: colors.map((color) => channel(color, 1)),
    B: colors.map((color) => channel(color, 2)),
    A: colors.map((_, place) => (place ? 255 : 0)),
    I: colors.map((_, place) => place),
    labels: ["", ...data.organs.map(([name]) => name)],
  };
}

async function decode(name, volume, window) {
  const [low, high] = window ?? [0, 255];
  return niivue.NVImage.loadFromBase64({
    base64: volume, name: `${name}.nii.gz`, colormap: "gray", cal_min: low, cal_max: high,
  });
}

/** A pane's canvas: the image, then always two overlays, the chosen mask and the contour. */
class PaneView {
  constructor(pane, place) {
    this.pane = pane;
    this.place = document.getElementById(`place-${place}`);
    this.canvas = document.getElementById(`canvas-${place}`);
    this.masks = new Map();
    this.viewer = new niivue.Niivue({
      isRadiologicalConvention: true, backColor: [0, 0, 0, 1], crosshairColor: [1, 1, 1, 0.6],
      crosshairWidth: 1, crosshairWidthUnit: "mm", multiplanarShowRender: niivue.SHOW_RENDER.NEVER, show3Dcrosshair: false,
      fontColor: [1, 1, 1, 1], fontSizeScaling: 0.5, tileMargin: 6, dragAndDropEnabled: false,
      isColorbar: false, logLevel: "error", sagittalNoseLeft: true,
    });
    this.viewer.onLocationChange = (location) => this.tell(location.mm);
  }

  tell([x, y, z]) {
    const side = (value, positive, negative) => `${Math.abs(value).toFixed(0)} ${value < 0 ? negative : positive}`;
    this.place.textContent = `${side(x, "R", "L")}, ${side(y, "A", "P")}, ${side(z, "S", "I")} mm`;
  }

  async open() {
    const { pane, viewer } = this;
    await viewer.attachToCanvas(this.canvas, true);
    viewer.addVolume(await decode("image", pane.image.volume, pane.image.window));
    if (pane.layers.length) viewer.addVolume(await this.mask(pane.layers[pane.first].name));
    if (pane.contour) {
      const outline = await decode("contour", pane.contour.volume);
      outline.setColormapLabel(colormap("#FFFFFF"));
      viewer.addVolume(outline);
    }
    if (pane.middle) viewer.scene.crosshairPos = viewer.mm2frac(pane.middle);
  }

  async mask(name) {
    if (!this.masks.has(name)) {
      const layer = this.pane.layers.find((one) => one.name === name);
      const image = await decode(name, layer.volume);
      image.setColormapLabel(colormap());
      this.masks.set(name, image);
    }
    return this.masks.get(name);
  }

  /** Lay the first pane's mask of this place over the image; a pane without its name keeps its own. */
  async show(choice) {
    const { pane, viewer } = this;
    const name = choice === HIDDEN ? undefined : data.panes[0].layers[choice].name;
    if (pane.layers.length) {
      if (pane.layers.some((layer) => layer.name === name)) viewer.volumes[1] = await this.mask(name);
      viewer.overlays = viewer.volumes.slice(1);
      viewer.volumes[1]._opacity = choice === HIDDEN ? 0 : opacity.value / 100;
      if (pane.contour) viewer.volumes[2]._opacity = contour.checked ? 1 : 0;
      viewer.updateGLVolume();
    }
    viewer.setSliceType(Number(planes.value));
    viewer.createOnLocationChange();
  }
}

function offerLayers(pane) {
  const field = document.getElementById("layers");
  for (const [place, name] of [...pane.layers.map((layer) => layer.name), HIDDEN].entries()) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name: "layer", value: place < pane.layers.length ? place : HIDDEN, checked: place === pane.first });
    label.append(input, ` ${name}`);
    field.append(label);
  }
}

async function start() {
  offerLayers(data.panes[0]);
  document.getElementById("contour-field").hidden = !data.panes.some((pane) => pane.contour);
  const views = data.panes.map((pane, place) => new PaneView(pane, place));
  const form = document.getElementById("controls");
  let turn = 0;
  const update = async () => {
    const mine = ++turn;
    document.getElementById("opacity-value").textContent = `${opacity.value} %`;
    document.body.dataset.state = "drawing";
    for (const view of views) await view.show(form.elements.layer.value);
    if (mine === turn) document.body.dataset.state = "ready";
  };
  for (const view of views) await view.open();
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  await update();
  state.textContent = "";
}

start().catch((error) => {
  state.textContent = `This browser cannot draw the page: ${error.message}. It needs WebGL 2.`;
});
