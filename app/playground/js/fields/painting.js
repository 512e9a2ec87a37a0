/** A mask as it is painted: a loaded one and strokes over it, on a canvas of the image's size. */

/** @import {Size} from "../types" */

/** A stroke of a round brush; diameter and points in pixels of the image. @typedef {{width: number, points: Size[]}} Stroke */

/** Of 255: what is at least so bright counts as white, as the server has it. */
const HALF = 128;

export class Painting {
  canvas = document.createElement("canvas");
  /** @type {ImageBitmap | OffscreenCanvas | null} a mask that was loaded, its white in the paint's colour */
  base = null;
  /** @type {Stroke[]} */
  strokes = [];
  colour = "";

  /** @type {Size | null} */
  get size() {
    return this.canvas.width ? [this.canvas.width, this.canvas.height] : null;
  }

  get isEmpty() {
    return !this.base && this.strokes.length === 0;
  }

  /**
   * An empty painting of that size.
   * @param {Size | null} size
   */
  reset(size) {
    const [width, height] = size ?? [0, 0];
    Object.assign(this.canvas, { width, height });
    this.base = null;
    this.strokes = [];
  }

  /**
   * Begins a stroke; `stretch` goes on with it.
   * @param {number} width
   * @param {Size} point
   */
  begin(width, point) {
    this.strokes.push({ width, points: [point] });
    this.draw(this.strokes[this.strokes.length - 1]);
  }

  /** @param {Size} point */
  stretch(point) {
    const stroke = this.strokes[this.strokes.length - 1];
    const from = stroke.points[stroke.points.length - 1];
    stroke.points.push(point);
    this.draw({ width: stroke.width, points: [from, point] });
  }

  /** Takes back the last stroke, or the loaded mask when there is none. */
  undo() {
    if (this.strokes.length) this.strokes.pop();
    else this.base = null;
    this.redraw();
  }

  clear() {
    this.base = null;
    this.strokes = [];
    this.redraw();
  }

  /**
   * Takes a mask in black and white in the place of all that was painted.
   * @param {HTMLImageElement} image of the painting's size
   */
  load(image) {
    const [width, height] = this.size ?? [1, 1];
    const base = new OffscreenCanvas(width, height);
    const context = base.getContext("2d", { willReadFrequently: true });
    if (!context) return;
    // What is transparent counts as black.
    context.fillRect(0, 0, width, height);
    context.drawImage(image, 0, 0);
    const pixels = context.getImageData(0, 0, width, height);
    const { data } = pixels;
    for (let at = 0; at < data.length; at += 4) {
      const grey = Math.round(0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2]);
      data[at + 3] = grey >= HALF ? 255 : 0;
    }
    context.putImageData(pixels, 0, 0);
    tint(context, this.colour);
    this.strokes = [];
    this.base = base;
    this.redraw();
  }

  redraw() {
    const context = this.canvas.getContext("2d");
    context?.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (this.base) context?.drawImage(this.base, 0, 0);
    for (const stroke of this.strokes) this.draw(stroke);
  }

  /** @param {Stroke} stroke */
  draw({ width, points }) {
    const context = this.canvas.getContext("2d");
    if (!context) return;
    const { colour } = this;
    const brush = { lineWidth: width, lineCap: "round", lineJoin: "round", strokeStyle: colour, fillStyle: colour };
    Object.assign(context, brush);
    context.beginPath();
    if (points.length === 1) {
      // A line of no length would leave nothing.
      context.arc(...points[0], width / 2, 0, 2 * Math.PI);
      context.fill();
    } else {
      for (const point of points) context.lineTo(...point);
      context.stroke();
    }
  }

  /**
   * The mask in black and white, as a file.
   * @returns {Promise<File>}
   */
  async file() {
    const copy = new OffscreenCanvas(this.canvas.width, this.canvas.height);
    const context = copy.getContext("2d");
    if (!context) throw new Error("This browser cannot make the mask.");
    context.drawImage(this.canvas, 0, 0);
    tint(context, "white");
    context.globalCompositeOperation = "destination-over";
    context.fillStyle = "black";
    context.fillRect(0, 0, copy.width, copy.height);
    return new File([await copy.convertToBlob({ type: "image/png" })], "mask.png", { type: "image/png" });
  }
}

/**
 * Gives everything that is painted one colour.
 * @param {OffscreenCanvasRenderingContext2D} context
 * @param {string} colour
 */
function tint(context, colour) {
  context.globalCompositeOperation = "source-in";
  context.fillStyle = colour;
  context.fillRect(0, 0, context.canvas.width, context.canvas.height);
}
