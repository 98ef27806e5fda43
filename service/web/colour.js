// Two colour scales, computed in OKLab, a colour space in which equal distances look equal.
// Values without sign run from dark violet to light yellow in even steps of lightness; values with
// a sign run from blue through near-white at zero to red, equally dark at both ends.

const STEPS = 256;

/** OKLCh (hue in degrees) to linear sRGB, after Björn Ottosson's definition of OKLab. */
function linear(lightness, chroma, hue) {
  const a = chroma * Math.cos((hue * Math.PI) / 180);
  const b = chroma * Math.sin((hue * Math.PI) / 180);
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
}

/** The colour as sRGB bytes; chroma is reduced as far as needed for a screen to show it. */
function srgb(lightness, chroma, hue) {
  const displayable = (rgb) => rgb.every((part) => part > -1e-4 && part < 1.0001);
  let [low, high] = [0, chroma];
  if (!displayable(linear(lightness, chroma, hue)))
    for (let step = 0; step < 16; step++) {
      const middle = (low + high) / 2;
      if (displayable(linear(lightness, middle, hue))) low = middle;
      else high = middle;
    }
  else low = chroma;
  return linear(lightness, low, hue).map((part) => {
    const value = Math.min(1, Math.max(0, part));
    return Math.round(255 * (value <= 0.0031308 ? 12.92 * value : 1.055 * value ** (1 / 2.4) - 0.055));
  });
}

function tableOf(colour) {
  const bytes = new Uint8ClampedArray(4 * STEPS);
  for (let step = 0; step < STEPS; step++) bytes.set([...colour(step / (STEPS - 1)), 255], 4 * step);
  return bytes;
}

export const SEQUENTIAL = tableOf((t) => srgb(0.17 + 0.77 * t, 0.13 - 0.12 * t + 0.16 * t * t, 300 - 195 * t));
export const DIVERGING = tableOf((t) => {
  const arm = Math.abs(2 * t - 1);
  return srgb(0.97 - 0.55 * arm, 0.2 * arm ** 0.9, t < 0.5 ? 255 : 28);
});

/** Write values as RGBA bytes on a scale { signed, limit }; values beyond it get its end colour. */
export function writeColours(values, scale, rgba) {
  const table = scale.signed ? DIVERGING : SEQUENTIAL;
  const [zero, unit] = scale.signed ? [127.5, 127.5] : [0, 255];
  const factor = unit / (scale.limit || 1);
  for (let i = 0; i < values.length; i++) {
    rgba[4 * i + 3] = Number.isNaN(values[i]) ? 0 : 255; // what is not defined has no colour
    const step = 4 * Math.min(255, Math.max(0, Math.round(zero + factor * values[i])));
    rgba[4 * i] = table[step];
    rgba[4 * i + 1] = table[step + 1];
    rgba[4 * i + 2] = table[step + 2];
  }
}

/** The colour of one value for CSS, and black or white ink that can be read on it. */
export function cssColour(value, scale) {
  const bytes = new Uint8ClampedArray(4);
  writeColours([value], scale, bytes);
  const [red, green, blue] = [...bytes].map((part) => (part / 255) ** 2.2);
  const luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  return { fill: `rgb(${bytes[0]} ${bytes[1]} ${bytes[2]})`, ink: luminance > 0.18 ? "#000" : "#fff" };
}
