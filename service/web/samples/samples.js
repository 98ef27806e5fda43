// The bundled photographs with their authors; CREDITS.md has the sources.

export const SAMPLES = [
  { name: "cat", text: "a cat looking up", credit: "Pexels, CC0" },
  { name: "motorcycles", text: "a row of motorcycles at the start", credit: "Eastman Kodak" },
  { name: "boat", text: "a boat at a pier", credit: "Eastman Kodak" },
  { name: "mountain", text: "a river below mountains", credit: "Eastman Kodak" },
  { name: "island", text: "an island in the sea", credit: "Eastman Kodak" },
  { name: "houses", text: "a row of half-timbered houses", credit: "Eastman Kodak" },
];
