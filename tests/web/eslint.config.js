// Lints the explorer and its tests: `npm --prefix tests/web run lint`.

import js from "@eslint/js";
import globals from "globals";

const rules = {
  eqeqeq: "error",
  "no-unused-vars": "error",
  "no-undef": "error",
  "no-var": "error",
  "prefer-const": "error",
};

export default [
  { linterOptions: { reportUnusedDisableDirectives: "error" } },
  { ...js.configs.recommended, files: ["service/web/**/*.js", "tests/web/**/*.js"] },
  { files: ["service/web/**/*.js"], languageOptions: { globals: globals.browser }, rules },
  { files: ["tests/web/**/*.js"], languageOptions: { globals: globals.node }, rules },
];
