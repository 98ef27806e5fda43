// Height and width: of an input or a patch in pixels, or of a grid in patches.

/** { height, width } from the API's JSON: one number for a square, or [height, width]. */
export function sizeOf(json) {
  const [height, width = height] = [json].flat();
  return { height, width };
}

export const sameSize = (one, other) => one.height === other.height && one.width === other.width;

/** A size as it is written for people; for one that is not a square it says which side is which. */
export const sizeText = (size) =>
  `${size.height} \u00d7 ${size.width} px${size.height === size.width ? "" : " (height \u00d7 width)"}`;
