// Numbers to colours: two scales made by formula in OKLab, whose distances are those the eye sees.
// Unsigned maps go from dark violet to light yellow in even steps of lightness; signed ones
// from blue over near-white at zero to red, both arms alike in lightness.

const STEPS = 256;

/** OKLCh to linear sRGB (Ottosson's OKLab). */
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

/** The nearest colour of that lightness and hue that a screen can show, as bytes. */
function srgb(lightness, chroma, hue) {
  const shown = (rgb) => rgb.every((part) => part > -1e-4 && part < 1.0001);
  let [low, high] = [0, chroma];
  if (!shown(linear(lightness, chroma, hue)))
    for (let step = 0; step < 16; step++) {
      const middle = (low + high) / 2;
      if (shown(linear(lightness, middle, hue))) low = middle;
      else high = middle;
    }
  else low = chroma;
  return linear(lightness, low, hue).map((part) => {
    const value = Math.min(1, Math.max(0, part));
    return Math.round(255 * (value <= 0.0031308 ? 12.92 * value : 1.055 * value ** (1 / 2.4) - 0.055));
  });
}

function table(colour) {
  const bytes = new Uint8ClampedArray(4 * STEPS);
  for (let step = 0; step < STEPS; step++) bytes.set([...colour(step / (STEPS - 1)), 255], 4 * step);
  return bytes;
}

export const unsigned = table((t) => srgb(0.17 + 0.77 * t, 0.13 - 0.12 * t + 0.16 * t * t, 300 - 195 * t));
export const signed = table((t) => {
  const arm = Math.abs(2 * t - 1);
  return srgb(0.97 - 0.55 * arm, 0.2 * arm ** 0.9, t < 0.5 ? 255 : 28);
});

/** RGBA bytes of values on a scale { signed, limit }; what lies beyond it has the end's colour. */
export function colours(values, scale, into) {
  const from = scale.signed ? signed : unsigned;
  const [zero, unit] = scale.signed ? [127.5, 127.5] : [0, 255];
  const factor = unit / (scale.limit || 1);
  for (let i = 0; i < values.length; i++) {
    const step = 4 * Math.min(255, Math.max(0, Math.round(zero + factor * values[i])));
    into[4 * i] = from[step];
    into[4 * i + 1] = from[step + 1];
    into[4 * i + 2] = from[step + 2];
    into[4 * i + 3] = 255;
  }
}

/** One value's colour for CSS, and black or white to write on it. */
export function colour(value, scale) {
  const bytes = new Uint8ClampedArray(4);
  colours([value], scale, bytes);
  const [red, green, blue] = [...bytes].map((part) => (part / 255) ** 2.2);
  const luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  return { fill: `rgb(${bytes[0]} ${bytes[1]} ${bytes[2]})`, ink: luminance > 0.18 ? "#000" : "#fff" };
}
