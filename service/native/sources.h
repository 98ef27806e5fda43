// The hash of the sources and flags that a library was compiled from.
//
// sources.py computes it, passes it to the compiler as SOURCES, and finds it again by its label.

#pragma once

#define TEXT(NAME) #NAME
#define TEXT_OF(NAME) TEXT(NAME)

extern "C" {
extern __attribute__((visibility("default"))) const char deepvit_sources[];
const char deepvit_sources[] = "deepvit sources " TEXT_OF(SOURCES);
}
