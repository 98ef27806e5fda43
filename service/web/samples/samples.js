// The bundled photographs with their authors; CREDITS.md has the sources.

export const SAMPLES = [
  { name: "dog", text: "a German shepherd", credit: "Hans Kemperman, public domain" },
  { name: "horse", text: "horses in a meadow", credit: "Seth Zeigler, CC0" },
  { name: "cat", text: "a cat’s face", credit: "Stéfan van der Walt, CC0" },
  { name: "moose", text: "a moose in a clearing", credit: "Ryan Hagerty, public domain" },
  { name: "owl", text: "an owl on a branch", credit: "Lepale, CC0" },
  {
    name: "rocket",
    text: "a rocket before launch, which belongs to none of the ten classes",
    credit: "SpaceX, CC0",
  },
];
