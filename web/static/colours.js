/** Colours of the 256-colour palette and true colours, made readable in both themes. */

/** @typedef {import("./ansi.js").Colour} Colour */
/** @typedef {readonly number[]} Rgb red, green and blue, 0–255 */

const MIN_CONTRAST = 4.5; // AA
const MAX_CACHED = 4096;
// The text, and the row background with the least contrast to it: as in base.css and log.css.
export const THEMES = {
  light: { text: [31, 35, 40], ground: [255, 232, 163] },
  dark: { text: [230, 237, 243], ground: [59, 45, 8] },
};
// xterm's values of the sixteen colours, for text or backgrounds beside other colours.
const SIXTEEN =
  "000000 cd0000 00cd00 cdcd00 0000ee cd00cd 00cdcd e5e5e5 7f7f7f ff0000 00ff00 ffff00 5c5cff ff00ff 00ffff ffffff"
    .split(" ")
    .map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
/** @type {Map<string, {color: string, backgroundColor: string}>} */
const cache = new Map();

/**
 * A colour as its parts.
 * @param {number | string} colour
 * @returns {Rgb}
 */
export function rgbOf(colour) {
  if (typeof colour === "string") return (colour.match(/\d+/g) ?? []).map(Number);
  if (colour < 16) return SIXTEEN[colour];
  if (colour >= 232) return Array(3).fill(8 + 10 * (colour - 232));
  const cube = colour - 16;
  const parts = [Math.floor(cube / 36), Math.floor(cube / 6) % 6, cube % 6];
  return parts.map((value) => (value ? 55 + 40 * value : 0));
}

/** @param {Rgb} rgb */
function luminance(rgb) {
  const [red, green, blue] = rgb.map((part) => {
    const value = part / 255;
    return value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

/**
 * The contrast of two colours, from 1 to 21.
 * @param {Rgb} one
 * @param {Rgb} other
 */
export function contrast(one, other) {
  const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}

/**
 * A text colour that is readable on a background: the same one, or darker or lighter.
 * @param {Rgb} text
 * @param {Rgb} ground
 */
export function readable(text, ground) {
  const isDarker = luminance(text) <= luminance(ground);
  for (const end of isDarker ? [0, 255] : [255, 0]) {
    for (let part = 0; part <= 10; part++) {
      const mixed = text.map((value) => Math.round(value + ((end - value) * part) / 10));
      if (contrast(mixed, ground) >= MIN_CONTRAST) return mixed;
    }
  }
  return text; // not reached: black or white is readable on any background
}

/** @param {Rgb[]} rgb in the light and in the dark theme */
function themed([light, dark]) {
  const [one, other] = [`rgb(${light.join(", ")})`, `rgb(${dark.join(", ")})`];
  return one === other ? one : `light-dark(${one}, ${other})`;
}

/**
 * The CSS colours of text, of which at least one is not one of the sixteen.
 * @param {Colour} fg
 * @param {Colour} bg
 * @param {boolean} reversed the default colours are swapped
 * @returns {{color: string, backgroundColor: string}} an empty background: the row's
 */
export function cssColours(fg, bg, reversed) {
  const key = `${fg} ${bg} ${reversed}`;
  const known = cache.get(key);
  if (known) return known;
  const pairs = Object.values(THEMES).map(({ text, ground }) => {
    const [front, back] = reversed ? [ground, text] : [text, ground];
    const behind = bg === null ? back : rgbOf(bg);
    const end = luminance(behind) < 0.18 ? 255 : 0;
    const plain = contrast(front, behind) >= MIN_CONTRAST ? front : [end, end, end];
    return { behind, front: readable(fg === null ? plain : rgbOf(fg), behind) };
  });
  const hasBackground = bg !== null || reversed;
  const colours = {
    color: themed(pairs.map(({ front }) => front)),
    backgroundColor: hasBackground ? themed(pairs.map(({ behind }) => behind)) : "",
  };
  if (cache.size >= MAX_CACHED) cache.clear();
  cache.set(key, colours);
  return colours;
}
