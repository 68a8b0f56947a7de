/** Show one film: window and level, zoom, attention and the areas that sentences speak of. */

import { make } from "./dom.js";

const WHITE = 65535;
/** Presets: width and centre of the window, as fractions of the film's range. */
export const PRESETS = { "full range": [1, 0.5], lungs: [0.6, 0.35], mediastinum: [0.5, 0.65], bone: [0.4, 0.8] };
const FRONTAL = ["PA", "AP"];
const KEYS = {
  ArrowLeft: (film) => film.changeWindow(-0.02, 0),
  ArrowRight: (film) => film.changeWindow(0.02, 0),
  ArrowUp: (film) => film.changeWindow(0, 0.02),
  ArrowDown: (film) => film.changeWindow(0, -0.02),
  "+": (film) => film.zoom(1.25, 0.5, 0.5),
  "-": (film) => film.zoom(0.8, 0.5, 0.5),
  i: (film) => film.invert(),
  0: (film) => film.reset(),
};

export class Film {
  /** Args: the answer of askFilm, and a label for people who cannot see it. */
  constructor({ pixels, rows, columns, view }, label) {
    this.pixels = pixels;
    this.canvas = make("canvas", { className: "pixels", width: columns, height: rows });
    this.pen = this.canvas.getContext("2d", { alpha: false });
    this.shown = this.pen.createImageData(columns, rows);
    this.words = new Uint32Array(this.shown.data.buffer);
    this.greys = new Uint32Array(WHITE + 1);
    this.heat = make("canvas", { className: "heat", width: 1, height: 1 });
    this.stage = make("div", { className: "stage" }, this.canvas, this.heat);
    this.level = make("span", { className: "level" });
    this.element = make("div", { className: "film", tabIndex: 0, role: "img" }, this.stage, this.level, ...marks(view));
    this.element.setAttribute("aria-label", label);
    this.listen();
    this.reset();
  }

  reset() {
    Object.assign(this, { scale: 1, x: 0, y: 0, isInverted: false });
    this.setWindow(...PRESETS["full range"]);
    this.place();
  }

  setWindow(width, centre) {
    this.width = Math.min(1, Math.max(0.02, width));
    this.centre = Math.min(1, Math.max(0, centre));
    this.redraw();
  }

  changeWindow(width, centre) {
    this.setWindow(this.width + width, this.centre + centre);
  }

  invert() {
    this.isInverted = !this.isInverted;
    this.redraw();
  }

  /** Draw once before the next picture, however often something changes until then. */
  redraw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      this.draw();
    });
  }

  draw() {
    const { pixels, words, greys } = this;
    const low = (this.centre - this.width / 2) * WHITE;
    for (let value = 0; value <= WHITE; value++) {
      const share = Math.min(1, Math.max(0, (value - low) / (this.width * WHITE)));
      const grey = Math.round(255 * (this.isInverted ? 1 - share : share));
      greys[value] = 0xff000000 | (grey << 16) | (grey << 8) | grey;
    }
    for (let place = 0; place < pixels.length; place++) words[place] = greys[pixels[place]];
    this.pen.putImageData(this.shown, 0, 0);
    this.level.textContent = `W ${this.width.toFixed(2)} L ${this.centre.toFixed(2)}${this.isInverted ? " inverted" : ""}`;
  }

  /** Zoom about a point, given as fractions of the element. */
  zoom(factor, x, y) {
    const scale = Math.min(20, Math.max(1, this.scale * factor));
    this.x = x - ((x - this.x) * scale) / this.scale;
    this.y = y - ((y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.place();
  }

  move(x, y) {
    this.x += x;
    this.y += y;
    this.place();
  }

  place() {
    // The film always covers its frame.
    this.x = Math.min(0, Math.max(1 - this.scale, this.x));
    this.y = Math.min(0, Math.max(1 - this.scale, this.y));
    this.stage.style.transform = `translate(${100 * this.x}%, ${100 * this.y}%) scale(${this.scale})`;
  }

  /** Show attention (rows of patches, each a strength from 0 to 1); null for none. */
  showHeat(strengths) {
    const grid = strengths ?? [[0]];
    this.heat.height = grid.length;
    this.heat.width = grid[0].length;
    const pen = this.heat.getContext("2d");
    grid.forEach((row, y) => row.forEach((strength, x) => {
      pen.fillStyle = `rgba(255, ${Math.round(220 * (1 - strength))}, 0, ${strength})`;
      pen.fillRect(x, y, 1, 1);
    }));
  }

  /** Add an area (fractions of the square that the model sees); return its element. */
  addArea([left, top, right, bottom], name) {
    const area = make("div", { className: "area", title: name });
    Object.assign(area.style, { left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * (right - left)}%`,
      height: `${100 * (bottom - top)}%` });
    this.stage.append(area);
    return area;
  }

  listen() {
    const frame = this.element;
    frame.addEventListener("pointerdown", (event) => frame.setPointerCapture(event.pointerId));
    frame.addEventListener("pointermove", (event) => {
      if (!event.buttons) return;
      const x = event.movementX / frame.clientWidth, y = event.movementY / frame.clientHeight;
      if (event.shiftKey || event.buttons !== 1) this.move(x, y);
      else this.changeWindow(x, -y);
    });
    frame.addEventListener("wheel", (event) => {
      event.preventDefault();
      const box = frame.getBoundingClientRect();
      this.zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    }, { passive: false });
    frame.addEventListener("keydown", (event) => {
      const act = KEYS[event.key];
      if (!act || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      act(this);
    });
  }
}

/** Mark the sides of a frontal film by convention: whether the file states them is not told to the page. */
function marks(view) {
  if (!FRONTAL.includes(view)) return [];
  return [make("span", { className: "mark right", textContent: "R" }), make("span", { className: "mark left", textContent: "L" })];
}
